"""Refuses bodies over a limit with 413, whether their length was declared or they come in chunks."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import HttpError


class BodyLimit:
    """`limit` is in bytes; `by_path` gives exact paths another one (uploads).

    The connection stays open after a refusal: a client that sends its whole body before it reads
    would otherwise see a reset instead of the 413. The protocol's deadlines bound what it can send.
    """

    def __init__(self, app: ASGIApp, limit: int, by_path: Mapping[str, int] | None = None) -> None:
        self.app = app
        self.limit = limit
        self.by_path = by_path or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.by_path.get(scope["path"], self.limit)
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            raise _too_large(limit)
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        await self.app(scope, receive_counted, send)


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"The body is larger than the limit of {limit} bytes.", code="request_too_large")
