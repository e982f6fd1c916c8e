"""Refuses requests for a host name that is not this server's: the defence against DNS rebinding.

A page of evil.example may point that name at 127.0.0.1 and then counts as same-origin in a browser;
only the Host header still tells. The port is not compared: tunnels and containers change it.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import HttpError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def host_name(value: str) -> str:
    """The name of a Host header without its port, lower case; IPv6 addresses keep their brackets."""
    name, closing, _ = value.rpartition("]")
    bare = name + closing if closing else value.partition(":")[0]
    return bare.lower().rstrip(".")


class HostCheck:
    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.allowed = LOOPBACK_NAMES | {host_name(host) for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            host = Headers(scope=scope).get("host", "")
            if host_name(host) not in self.allowed:
                message = f"This server does not answer for host {host[:100]!r}; add it to allowed_hosts."
                raise HttpError(403, message, code="host_not_allowed")
        await self.app(scope, receive, send)
