"""`GET /v1/system`: what runs here, as the first page shows it."""

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serve.http.services import services_of

__all__ = ["ROUTES"]


async def system(request: Request) -> JSONResponse:
    """Version, readiness, slots, queue and documents."""
    services = services_of(request)
    stats = await services.light.run(services.runtime.stats)
    body = {"version": version("tarsia"), "ready": services.runtime.ready, **stats}
    return JSONResponse(body)


ROUTES = [Route("/v1/system", system)]
