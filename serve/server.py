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
from starlette.applications import Starlette

from engine.errors import FeatureDisabled, TarsiaError
from serve.app import create_app
from serve.config import Settings
from serve.http.drain import Drain
from serve.http.protocol import ProtocolLimits, protocol_with
from serve.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from serve.runtime import Runtime

__all__ = ["AddressInUse", "DrainingServer", "bind", "serve_until_stopped"]

LAST_WORDS_SECONDS = 2
"""What streams get after the deadline to write their error event."""

EXIT_SECONDS = 5.0
"""What is left after the last request: closing the runtime, and blocking calls nobody waits for."""


class AddressInUse(TarsiaError):
    code = "address_in_use"


def bind(settings: Settings) -> socket.socket:
    """A listening socket at the configured address; port 0 takes a free one.

    Raises:
        FeatureDisabled: the address is not a loopback address.
        AddressInUse: somebody else has the port, or it may not be taken.
    """
    host, port = settings.host, settings.port
    if host != "localhost" and not _is_loopback(host):
        raise FeatureDisabled(
            f"cannot bind {host}: there is no authentication yet, so only loopback addresses are served; "
            "use --host 127.0.0.1 and reach it through an SSH tunnel"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise AddressInUse(f"cannot bind {host}:{port}: {reason}; choose another with --port") from error


def serve_until_stopped(
    runtime: "Runtime",
    settings: Settings,
    listener: socket.socket,
    *,
    on_started: Callable[[], None] | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C has drained it; returns normally then, for exit code 0.

    The runtime stays the caller's to close. A second signal raises KeyboardInterrupt.

    Args:
        on_started: called once when requests are answered and signals drain; to tell people.
    """
    configure_logging(settings.access_log)
    drain = Drain()
    config = _uvicorn_config(create_app(runtime, settings, drain=drain), settings)
    server = DrainingServer(config, drain, settings.drain_seconds, on_started=on_started)
    server.run(sockets=[listener])
    _bound_the_exit()
    if server.force_exit:
        raise KeyboardInterrupt


class DrainingServer(uvicorn.Server):
    """uvicorn with an own order of stopping; its listening socket stays open until the drain ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        drain_seconds: float,
        *,
        on_started: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_started is not None:
            self._on_started()

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


def _uvicorn_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    # The plain asyncio loop and httptools: what is tested is what runs, whatever else is installed.
    return uvicorn.Config(
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


def _bound_the_exit() -> None:
    """Python joins its threads at exit; a call that outlived the drain must not keep it waiting."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    watchdog = threading.Timer(EXIT_SECONDS, leave)
    watchdog.daemon = True
    watchdog.start()
