"""Refuses new work once the server has been told to stop; probes and metrics are still answered."""

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import Overloaded
from serve.http.drain import Drain

STILL_ANSWERED = frozenset({"/healthz", "/livez", "/readyz", "/metrics"})


class RefuseWhenDraining:
    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.drain.started and scope["path"] not in STILL_ANSWERED:
            raise Overloaded("The server is shutting down; try again shortly.", retry_after=5)
        await self.app(scope, receive, send)
