"""`/metrics` in Prometheus' text format."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.http.services import services_of
from serve.telemetry.metrics import CONTENT_TYPE

__all__ = ["ROUTES"]


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    services = services_of(request)
    text = await services.light.run(services.metrics.render)
    return Response(text, headers={"content-type": CONTENT_TYPE})


ROUTES = [Route("/metrics", metrics)]
