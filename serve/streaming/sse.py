"""Server-sent events: framing, keep-alive, prompt ends.

A stream that fails must not end cleanly: clients of OpenAI take a clean end for a complete answer.
Whoever makes the events turns a failure into an error event; an unexpected one breaks the connection.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from engine.errors import Cancelled
from serve.streaming.attend import until_disconnect

__all__ = ["DONE", "EventStream", "event"]

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
KEEP_ALIVE_SECONDS = 15.0


def event(data: object) -> bytes:
    """One event. The JSON is ASCII: some clients split lines at U+2028 and the like."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class EventStream(StreamingResponse):
    """Sends events as they come and a comment when none came for a while.

    Args:
        events: the framed events; closed at the end, however it comes.
        on_disconnect: called at once, on the event loop, when the client goes away.
        keep_alive: seconds of silence before a comment.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        on_disconnect: Callable[[], None],
        keep_alive: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events
        self._on_disconnect = on_disconnect
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with contextlib.aclosing(self._events):
                async for chunk in _with_pings(self._events, self._keep_alive):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Cancelled:
            if not watcher.done():
                raise
        finally:
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        await until_disconnect(receive)
        self._on_disconnect()


async def _with_pings(events: AsyncGenerator[bytes, None], seconds: float) -> AsyncIterator[bytes]:
    while True:
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while not (await asyncio.wait({upcoming}, timeout=seconds))[0]:
                yield PING
        except BaseException:
            upcoming.cancel()
            raise
        try:
            yield upcoming.result()
        except StopAsyncIteration:
            return
