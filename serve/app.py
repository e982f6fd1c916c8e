"""The ASGI application: routes, and the middleware around them in one visible order."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.config import Settings
from serve.errors import error_response
from serve.http.drain import Drain
from serve.http.middleware.access_log import AccessLog
from serve.http.middleware.body_limit import BodyLimit
from serve.http.middleware.error_envelope import ErrorEnvelope
from serve.http.middleware.host_check import HostCheck
from serve.http.middleware.origin_check import OriginCheck
from serve.http.middleware.refuse_when_draining import RefuseWhenDraining
from serve.http.middleware.request_id import RequestId
from serve.http.middleware.request_metrics import RequestMetrics
from serve.http.services import Services
from serve.routes import (
    ask,
    chat,
    completions,
    decisions,
    documents,
    embeddings,
    gallery,
    health,
    images,
    metrics,
    models,
    rerank,
    system,
)
from serve.routes.openapi import openapi_route
from serve.routes.page import page_routes
from serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from serve.runtime import Runtime

__all__ = ["create_app"]

_API: tuple[Sequence[Route], ...] = (
    models.ROUTES,
    chat.ROUTES,
    completions.ROUTES,
    embeddings.ROUTES,
    rerank.ROUTES,
    images.ROUTES,
    gallery.ROUTES,
    decisions.ROUTES,
    documents.ROUTES,
    ask.ROUTES,
    system.ROUTES,
)


def create_app(runtime: "Runtime", settings: Settings, *, drain: Drain | None = None) -> Starlette:
    """The whole application over one runtime, which stays the caller's to close.

    Every `/v1/...` route also answers without the prefix: clients disagree about who adds it.
    """
    drain = drain or Drain()
    counters = Metrics(lambda: live_gauges(runtime.stats()))
    described = [*(route for group in _API for route in group), *health.ROUTES, *metrics.ROUTES]
    short = [_without_prefix(route) for group in _API for route in group]
    routes = [*described, *short, *page_routes(), openapi_route(described)]
    app = Starlette(
        routes=routes,
        middleware=_middleware(settings, counters, drain),
        exception_handlers={HTTPException: _http_exception},
    )
    app.router.redirect_slashes = False
    app.state.services = Services(runtime, settings, counters, drain)
    return app


def live_gauges(stats: Mapping[str, object]) -> dict[str, float | dict[str, float]]:
    """The numbers among a runtime's statistics, nested names joined by an underscore; those of collections
    by the collection's name."""
    gauges: dict[str, float | dict[str, float]] = dict(_numbers({**stats, "collections": None}))
    collections = stats.get("collections")
    if isinstance(collections, Mapping):
        for collection, facts in collections.items():
            for name, number in _numbers(facts).items():
                of_each = gauges.setdefault(f"collection_{name}", {})
                assert isinstance(of_each, dict)
                of_each[collection] = number
    return gauges


def _numbers(stats: Mapping[str, object]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in stats.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            found[name] = float(value)
    return found


def _middleware(settings: Settings, counters: Metrics, drain: Drain) -> list[Middleware]:
    """Outermost first. CORS is outside the envelope, so that pages can read every error."""
    of_images = (*images.ROUTES, *gallery.ROUTES, *decisions.ROUTES)
    takes_images = [route.path for route in of_images if "{" not in route.path]
    paths = ("/v1/documents", *takes_images)
    either = [path for full in paths for path in (full, full.removeprefix("/v1"))]
    uploads = dict.fromkeys(either, settings.max_upload_bytes)
    stack = [Middleware(RequestId)]
    if settings.access_log != "off":
        stack.append(Middleware(AccessLog, settings.access_log))
    stack.append(Middleware(RequestMetrics, counters))
    if settings.cors_origins:
        stack.append(_cors(settings))
    return [
        *stack,
        Middleware(ErrorEnvelope),
        Middleware(HostCheck, settings.allowed_hosts),
        Middleware(OriginCheck, settings.cors_origins),
        Middleware(RefuseWhenDraining, drain),
        Middleware(BodyLimit, settings.max_body_bytes, uploads),
    ]


def _cors(settings: Settings) -> Middleware:
    # OpenAI's browser client sends a dozen x-stainless-* headers: all are allowed, none is trusted.
    return Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("x-request-id", "retry-after"),
    )


def _without_prefix(route: Route) -> Route:
    return Route(route.path.removeprefix("/v1"), route.endpoint, methods=list(route.methods or ()))


async def _http_exception(request: Request, error: Exception) -> Response:
    return error_response(error, request_id=request.scope.get("state", {}).get("request_id"))
