"""The first page and its few files, read once when the application is made; a strict CSP, no CDN."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

_FOLDER = Path(__file__).parent.parent / "dashboard"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/dashboard/page.css": ("page.css", "text/css; charset=utf-8"),
    "/favicon.ico": ("favicon.svg", "image/svg+xml"),
}
_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def page_routes() -> list[Route]:
    """One route per file of the page."""
    return [
        Route(path, _sender((_FOLDER / name).read_bytes(), media_type))
        for path, (name, media_type) in _FILES.items()
    ]


def _sender(content: bytes, media_type: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def send_file(request: Request) -> Response:
        return Response(content, headers=_HEADERS | {"content-type": media_type})

    return send_file
