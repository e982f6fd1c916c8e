"""Runs the application on a socket, and stops it without losing what clients were told.

The first SIGTERM or SIGINT drains: `/readyz` turns 503, new work is refused, running streams have
`drain_seconds` to finish, then end with an error event; the process exits 0. A second one cuts short.
"""

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from engine.errors import FeatureDisabled, TarsiaError
from serve.app import create_app
from serve.config import Settings
from serve.http.drain import Drain
from serve.http.protocol import ProtocolLimits, protocol_with
from serve.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from serve.runtime import Runtime

__all__ = ["AddressInUse", "DrainingServer", "bind", "run"]

LAST_WORDS_SECONDS = 2
"""What streams get after the deadline to write their error event."""


class AddressInUse(TarsiaError):
    code = "address_in_use"


def run(runtime: "Runtime", settings: Settings, *, on_listening: Callable[[str], None] | None = None) -> int:
    """Serves until a signal; closes the runtime; gives the process's exit code.

    Args:
        on_listening: called once with the address, `http://127.0.0.1:8080`, when it can be connected to.

    Raises:
        FeatureDisabled: `settings.host` is not a loopback address.
        AddressInUse: somebody else has the port.
    """
    listener = bind(settings.host, settings.port)
    configure_logging(settings.access_log)
    drain = Drain()
    app = create_app(runtime, settings, drain=drain)
    config = uvicorn.Config(
        app,
        http=protocol_with(_limits(settings)),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_WORDS_SECONDS,
    )
    server = DrainingServer(config, drain, settings.drain_seconds)
    if on_listening is not None:
        on_listening(address_of(listener))
    try:
        server.run(sockets=[listener])
    finally:
        runtime.close()
    return _exit(130 if server.force_exit else 0)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address; port 0 takes a free one."""
    if host != "localhost" and not _is_loopback(host):
        raise FeatureDisabled(
            f"cannot bind {host}: there is no authentication yet, so only loopback addresses are served; "
            "use --host 127.0.0.1 and reach it through an SSH tunnel"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressInUse(f"cannot bind {host}:{port}: {reason}; choose another with --port") from error


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """uvicorn with an own order of stopping; its listening socket stays open until the drain ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        drain_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._asked = False
        self._deadline = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn raises the signal again afterwards, and so dies of it; this one exits 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._asked:
            self.force_exit = self.should_exit = True
        self._asked = True

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        if not self._asked:
            return False
        if not self._drain.started:
            self._drain.start()
            self._deadline = self._clock() + self._drain_seconds
            return False
        if self._clock() >= self._deadline:
            self._drain.expire()
            return True
        return not self.server_state.tasks


def _limits(settings: Settings) -> ProtocolLimits:
    return ProtocolLimits(
        header_timeout=settings.header_timeout,
        body_timeout=settings.body_timeout,
        max_header_bytes=settings.max_header_bytes,
        max_connections=settings.max_connections,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _exit(code: int) -> int:
    """A worker thread that outlived the drain (a long parse) must not keep the process alive."""
    alive = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if alive:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
