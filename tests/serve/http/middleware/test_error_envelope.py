import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from engine.errors import ContextLengthExceeded, Overloaded
from serve.http.middleware.error_envelope import ErrorEnvelope
from serve.http.middleware.request_id import RequestId


def client_of(error: Exception) -> TestClient:
    async def fail(request):
        raise error

    stack = [Middleware(RequestId), Middleware(ErrorEnvelope)]
    return TestClient(Starlette(routes=[Route("/", fail)], middleware=stack))


def test_an_error_of_ours_becomes_the_envelope_with_its_param():
    answer = client_of(ContextLengthExceeded("too long", param="messages")).get("/")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }


def test_an_unknown_error_is_logged_and_answered_without_its_text(caplog):
    with caplog.at_level(logging.ERROR, "tarsia.http"):
        answer = client_of(RuntimeError("the password is hunter2")).get("/")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(("asked", "sent"), [(0.2, "1"), (7.5, "8"), (100_000, "120")])
def test_overload_says_when_to_come_back_within_what_clients_accept(asked, sent):
    answer = client_of(Overloaded("busy", retry_after=asked)).get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, sent)


def test_a_failure_after_the_first_byte_is_not_hidden():
    async def half(request):
        async def body():
            yield b"half"
            raise RuntimeError("broken")

        return StreamingResponse(body())

    client = TestClient(ErrorEnvelope(Starlette(routes=[Route("/", half)])))
    with pytest.raises(RuntimeError, match="broken"):
        client.get("/")


def test_a_client_that_left_costs_no_traceback(caplog):
    async def app(scope, receive, send):
        raise ClientDisconnect

    sent = []
    scope = {"type": "http", "method": "POST", "path": "/"}
    asyncio.run(ErrorEnvelope(app)(scope, None, sent.append))
    assert sent == []
    assert caplog.text == ""
