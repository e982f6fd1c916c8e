"""`/openapi.json`."""

from collections.abc import Sequence
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serve.http.openapi import describe

__all__ = ["openapi_route"]


def openapi_route(routes: Sequence[Route]) -> Route:
    """A route that describes the given ones; made when the application is, sent as it is."""
    document = describe(routes, version=version("tarsia"))

    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(document)

    return Route("/openapi.json", openapi, include_in_schema=False)
