"""Writes one access line per request when its last byte is out, or when its client has left."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import CLIENT_CLOSED_REQUEST
from serve.telemetry.logs import ACCESS_FORMATS, ACCESS_LOGGER, AccessRecord

logger = logging.getLogger(ACCESS_LOGGER)


class AccessLog:
    """`style` is a name of ACCESS_FORMATS. A request that got no response start is logged as 499."""

    def __init__(self, app: ASGIApp, style: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.app = app
        self.format = ACCESS_FORMATS[style]
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, sent = self.clock(), CLIENT_CLOSED_REQUEST, 0

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_counted)
        finally:
            logger.info(self.format(_record(scope, status, sent, self.clock() - began)))


def _record(scope: Scope, status: int, sent: int, seconds: float) -> AccessRecord:
    headers = Headers(scope=scope)
    query = scope["query_string"].decode("latin-1")
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    return AccessRecord(
        time=datetime.now(UTC),
        client=scope["client"][0] if scope.get("client") else "",
        method=scope["method"],
        target=f"{path}?{query}" if query else path,
        http_version=scope["http_version"],
        status=status,
        bytes=sent,
        seconds=seconds,
        referer=headers.get("referer", ""),
        user_agent=headers.get("user-agent", ""),
        request_id=scope.get("state", {}).get("request_id", ""),
    )
