"""Raw bytes against a real server: what smuggles, floods or stalls is cut off; what is fine is served."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from serve.http.protocol import ProtocolLimits, protocol_with

LIMITS = ProtocolLimits(
    header_timeout=0.5, body_timeout=0.5, max_header_bytes=8192, max_headers=50, max_connections=8
)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def slow(request: Request) -> StreamingResponse:
    async def ticks():
        for _ in range(8):
            yield b"tick"
            await asyncio.sleep(0.2)

    return StreamingResponse(ticks())


async def flood(request: Request) -> StreamingResponse:
    async def zeros():
        for _ in range(4000):
            yield bytes(65536)

    return StreamingResponse(zeros())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    routes = [Route("/", hello), Route("/", size, methods=["POST"]), Route("/slow", slow)]
    app = Starlette(routes=[*routes, Route("/flood", flood)])
    config = uvicorn.Config(
        app, http=protocol_with(LIMITS), loop="asyncio", ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture
def connect(port):
    opened = []

    def open_one() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()
    time.sleep(0.05)


def read_all(client: socket.socket) -> bytes:
    """Everything until the server closes; fails after the socket's timeout."""
    received = b""
    try:
        while chunk := client.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def status_of(client: socket.socket, request: bytes) -> int:
    client.sendall(request)
    return int(client.recv(65536).split(b" ", 2)[1])


def head(*lines: bytes, method: bytes = b"POST") -> bytes:
    return method + b" / HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"


HOST = b"Host: localhost"

MALFORMED = {
    "both lengths": head(HOST, b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "two lengths": head(HOST, b"Content-Length: 4", b"Content-Length: 5") + b"12345",
    "signed length": head(HOST, b"Content-Length: +5") + b"12345",
    "unknown coding": head(HOST, b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "folded header": head(HOST, b"X: a\r\n b"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "NUL in a value": head(HOST, b"X: a\0b"),
    "bad chunk size": head(HOST, b"Transfer-Encoding: chunked") + b"zz\r\nhello\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": head(HOST, b"Host: evil.example", method=b"GET"),
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_refused_and_the_connection_closed(connect, request_bytes):
    client = connect()
    client.sendall(request_bytes)
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "bad_http"' in answer
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(HOST, b"X: " + b"a" * 9000, method=b"GET"),
        head(HOST, *[b"X: a"] * 60, method=b"GET"),
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["size", "count", "target"],
)
def test_too_large_a_head_is_431(connect, request_bytes):
    assert status_of(connect(), request_bytes) == 431


def test_a_header_without_an_end_is_cut_off_before_it_fills_the_memory(connect):
    client = connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    with pytest.raises(OSError):
        for _ in range(10_000):
            client.sendall(b"a" * 4096)


STALLS = {
    "silence": b"",
    "half a request line": b"GET / HT",
    "half a header": b"GET / HTTP/1.1\r\nHost: loc",
    "empty lines": b"\r\n\r\n",
    "no body": head(HOST, b"Content-Length: 10"),
    "half a body": head(HOST, b"Content-Length: 10") + b"12345",
    "half a chunk": head(HOST, b"Transfer-Encoding: chunked") + b"5\r\nhe",
    "half the body of a GET": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1",
}


@pytest.mark.parametrize("beginning", STALLS.values(), ids=STALLS.keys())
def test_a_stalled_client_is_dropped_at_the_deadline(connect, beginning):
    client, began = connect(), time.monotonic()
    client.sendall(beginning)
    read_all(client)
    assert 0.3 < time.monotonic() - began < 3


def test_bytes_that_trickle_in_do_not_keep_a_connection_open(connect):
    client, began = connect(), time.monotonic()
    client.sendall(head(HOST, b"Content-Length: 1000"))
    with pytest.raises(OSError):
        while time.monotonic() - began < 4:
            client.sendall(b"x")
            time.sleep(0.1)
    assert time.monotonic() - began < 3


def test_a_slow_upload_that_moves_is_served(connect):
    client = connect()
    client.sendall(head(HOST, b"Content-Length: 16000"))
    for _ in range(8):
        client.sendall(bytes(2000))
        time.sleep(0.2)
    assert client.recv(65536).endswith(b"16000")


def test_a_stream_longer_than_the_deadlines_is_not_cut(connect):
    client = connect()
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n\r\n")
    assert read_all(client).count(b"tick") == 8


def test_a_client_that_does_not_read_is_dropped(connect):
    client = connect()
    client.sendall(GET.replace(b" / ", b" /flood "))
    time.sleep(1.5)
    assert len(read_all(client)) < 4000 * 65536


def test_requests_one_after_another_and_pipelined_are_served(connect):
    client = connect()
    assert status_of(client, GET) == 200
    client.sendall(GET + GET)
    time.sleep(0.2)
    assert client.recv(65536).count(b"200 OK") == 2


def test_connections_over_the_cap_are_told_so(connect):
    crowd = [connect() for _ in range(LIMITS.max_connections)]
    assert status_of(crowd[0], GET) == 200
    assert read_all(connect()).startswith(b"HTTP/1.1 503 ")
