import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.http.middleware.body_limit import BodyLimit
from serve.http.middleware.error_envelope import ErrorEnvelope


async def size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/", size, methods=["POST"]), Route("/upload", size, methods=["POST"])]
    stack = [Middleware(ErrorEnvelope), Middleware(BodyLimit, 10, {"/upload": 100})]
    return TestClient(Starlette(routes=routes, middleware=stack))


def chunks(total: int):
    yield from (b"x" for _ in range(total))


@pytest.mark.parametrize("path", ["/", "/upload"])
@pytest.mark.parametrize("make", [lambda n: b"x" * n, chunks], ids=["declared", "chunked"])
def test_a_body_at_the_limit_passes_and_one_byte_more_is_413_in_the_envelope(client, path, make):
    limit = 100 if path == "/upload" else 10
    assert client.post(path, content=make(limit)).text == str(limit)
    answer = client.post(path, content=make(limit + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert str(limit) in answer.json()["error"]["message"]


def test_a_declared_length_is_refused_before_the_body_is_read(client):
    answer = client.post("/", content=b"x", headers={"content-length": "99999999999"})
    assert answer.status_code == 413
