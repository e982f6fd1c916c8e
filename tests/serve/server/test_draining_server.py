"""The order of stopping, without models: a real server in a thread, told to stop as a signal would."""

import asyncio
import signal
import socket
import threading
import time

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from engine.errors import Overloaded
from serve.http.drain import Drain
from serve.server import DrainingServer
from serve.streaming.attend import attend
from serve.streaming.sse import EventStream, event


class Running:
    """A server whose `/stream` ticks for `seconds` or until the drain ends it with an error event."""

    def __init__(self, drain_seconds: float, seconds: float) -> None:
        self.drain = Drain()
        self.seconds = seconds
        routes = [Route("/ready", self.ready), Route("/stream", self.stream), Route("/wait", self.wait)]
        config = uvicorn.Config(
            Starlette(routes=routes),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        self.started = threading.Event()
        self.server = DrainingServer(config, self.drain, drain_seconds, on_started=self.started.set)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    async def ready(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("draining" if self.drain.started else "ready")

    async def wait(self, request: Request) -> PlainTextResponse:
        try:
            await attend(request, self.drain, asyncio.sleep(self.seconds))
        except Overloaded as error:
            return PlainTextResponse(str(error), status_code=503)
        return PlainTextResponse("done")

    async def stream(self, request: Request) -> EventStream:
        late = asyncio.Event()
        self.drain.on_expire(late.set)

        async def events():
            for _ in range(int(self.seconds / 0.1)):
                yield event("tick")
                await asyncio.sleep(0.1)
                if late.is_set():
                    yield event({"error": "late"})
                    return
            yield event("end")

        return EventStream(events(), on_disconnect=lambda: None)

    def stop(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)


@pytest.fixture
def run():
    started: list[Running] = []

    def start(**options: float) -> Running:
        started.append(Running(**options))
        return started[-1]

    yield start
    for running in started:
        running.server.should_exit = running.server.force_exit = True
        running.thread.join(10)
        assert not running.thread.is_alive()


def test_an_idle_server_stops_at_once(run):
    running, began = run(drain_seconds=30, seconds=1), time.monotonic()
    assert running.started.wait(5)
    assert httpx2.get(running.url + "/ready").text == "ready"
    running.stop()
    running.thread.join(10)
    assert time.monotonic() - began < 3


def test_a_stream_that_fits_into_the_drain_finishes_and_new_connections_hear_of_it(run):
    running = run(drain_seconds=10, seconds=1)
    with httpx2.stream("GET", running.url + "/stream") as response:
        lines = response.iter_lines()
        assert next(lines) == 'data: "tick"'
        running.stop()
        answers = (httpx2.get(running.url + "/ready").text for _ in range(1000))
        assert "draining" in answers
        assert 'data: "end"' in list(lines)
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_a_stream_that_does_not_fit_ends_with_its_error_event_in_time(run):
    running = run(drain_seconds=0.5, seconds=60)
    with httpx2.stream("GET", running.url + "/stream") as response:
        lines = response.iter_lines()
        next(lines)
        running.stop()
        began = time.monotonic()
        assert list(lines)[-2] == 'data: {"error":"late"}'
    running.thread.join(10)
    assert not running.thread.is_alive()
    assert time.monotonic() - began < 3


def test_a_plain_request_that_does_not_fit_is_answered_503(run):
    running = run(drain_seconds=0.5, seconds=60)
    threading.Timer(0.3, running.stop).start()
    response = httpx2.get(running.url + "/wait", timeout=10)
    assert response.status_code == 503
    assert "shutting down" in response.text
