"""Probes: alive as a process (`/healthz`, `/livez`), ready for work (`/readyz`)."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serve.http.services import services_of

__all__ = ["ROUTES"]


async def alive(request: Request) -> JSONResponse:
    """200 as long as the process answers."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> JSONResponse:
    """200 when requests will be served; 503 while models warm up and while the server drains."""
    services = services_of(request)
    if services.drain.started:
        return JSONResponse({"status": "draining"}, status_code=503)
    if not services.runtime.ready:
        return JSONResponse({"status": "starting"}, status_code=503)
    return JSONResponse({"status": "ready"})


ROUTES = [Route("/healthz", alive), Route("/livez", alive), Route("/readyz", ready)]
