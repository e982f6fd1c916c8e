"""Refuses what a browser sends on behalf of another site's page.

CORS only hides the answer; a form or a `fetch` with a plain content type is still carried out. So a
foreign `Origin` is refused, and a change without an Origin that the browser marks as cross-site.
Clients that are not browsers send neither header.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import HttpError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginCheck:
    """`cors_origins` are the configured exceptions, as `https://app.example`, or `*` for all."""

    def __init__(self, app: ASGIApp, cors_origins: Iterable[str] = ()) -> None:
        self.app = app
        self.cors_origins = frozenset(cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and "*" not in self.cors_origins:
            self._check(Headers(scope=scope), scope.get("method", "GET"))
        await self.app(scope, receive, send)

    def _check(self, headers: Headers, method: str) -> None:
        origin = headers.get("origin")
        if origin is None:
            foreign = method not in _SAFE_METHODS and headers.get("sec-fetch-site") == "cross-site"
        else:
            own = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
            foreign = not own and origin not in self.cors_origins
        if foreign:
            message = (
                f"Pages of {(origin or 'other sites')[:100]!r} may not use this server; see cors_origins."
            )
            raise HttpError(403, message, code="origin_not_allowed")
