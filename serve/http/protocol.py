"""HTTP/1.1 on a socket, with the limits uvicorn leaves out: deadlines, header sizes, one Host, a cap.

httptools refuses what smuggles requests (both lengths, folded headers, bare line feeds); this class
refuses what httptools lets through. uvicorn is given the class itself, so it never falls back to h11.
"""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedHttpProtocol", "ProtocolLimits", "protocol_with"]

MIN_WINDOW_BYTES = 1024
"""What a body must bring per body timeout, so that a byte a minute does not count as progress."""


@dataclass(frozen=True)
class ProtocolLimits:
    """Times in seconds, sizes in bytes; the request line counts as its own header."""

    header_timeout: float = 10.0
    body_timeout: float = 30.0
    max_header_bytes: int = 32 * 2**10
    max_headers: int = 100
    max_connections: int = 512


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection: a head has an absolute deadline, a body and a slow reader must keep moving."""

    limits = ProtocolLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._raw_bytes = self._parsed_bytes = self._window_bytes = 0
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._refusal = (HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm_read(self.limits.header_timeout)
        if len(self.connections) > self.limits.max_connections:
            self._refusal = (HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; try again later.")
            self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm_read()
        super().connection_lost(exc)
        self._disarm_write()

    def data_received(self, data: bytes) -> None:
        if self._read_timer is None:
            self._arm_read(self.limits.header_timeout)
        self._window_bytes += len(data)
        self._raw_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._raw_bytes > self.limits.max_header_bytes:
            self._refuse_headers()
            if not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._raw_bytes = self._parsed_bytes = 0
        self._arm_read(self.limits.header_timeout)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1:
            self._refusal = (HTTPStatus.BAD_REQUEST, f"A request needs one Host header, not {hosts}.")
            raise ValueError(self._refusal[1])
        self._in_head = False
        self._window_bytes = 0
        self._arm_read(self.limits.body_timeout)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm_read()
        self._in_head, self._raw_bytes = True, 0
        super().on_message_complete()
        if self._answered():
            self._arm_read(self.limits.header_timeout)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._disarm_write()
        self._write_timer = self.loop.call_later(self.limits.body_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._disarm_write()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answers in the error envelope, with the status of what was wrong, and closes."""
        status, message = self._refusal
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "bad_http"}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade nobody offers is answered as the plain request it also is."""

    def _count(self, size: int) -> None:
        self._parsed_bytes += size
        if self._parsed_bytes > self.limits.max_header_bytes or len(self.headers) > self.limits.max_headers:
            self._refuse_headers()
            raise ValueError(self._refusal[1])

    def _refuse_headers(self) -> None:
        size, count = self.limits.max_header_bytes, self.limits.max_headers
        message = f"Headers are limited to {size} bytes and {count} lines."
        self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _arm_read(self, seconds: float) -> None:
        self._disarm_read()
        self._read_timer = self.loop.call_later(seconds, self._read_deadline)

    def _read_deadline(self) -> None:
        if self._in_head:  # the head of a pipelined request may wait for the answer before it
            patient = not self._answered()
        else:  # reading is paused by us, not by the client
            patient = self._window_bytes >= MIN_WINDOW_BYTES or self.flow.read_paused
        if patient:
            self._window_bytes = 0
            self._arm_read(self.limits.body_timeout)
        else:
            self.transport.close()

    def _disarm_read(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _disarm_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def protocol_with(limits: ProtocolLimits) -> type[BoundedHttpProtocol]:
    """The class with its limits bound: uvicorn makes the instances and passes no settings of ours."""
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), {"limits": limits})
