import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.http.context import REQUEST_ID
from serve.http.middleware.request_id import RequestId


async def show(request: Request) -> PlainTextResponse:
    assert REQUEST_ID.get() == request.state.request_id
    return PlainTextResponse(request.state.request_id)


@pytest.fixture
def client() -> TestClient:
    return TestClient(RequestId(Starlette(routes=[Route("/", show)])))


def test_every_request_gets_a_new_id(client):
    first, second = client.get("/"), client.get("/")
    assert first.headers["x-request-id"] == first.text
    assert first.text != second.text


def test_a_sane_id_of_the_client_is_kept(client):
    assert client.get("/", headers={"x-request-id": "trace-1.2_3"}).headers["x-request-id"] == "trace-1.2_3"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "a;b", "<script>"])
def test_an_id_that_could_harm_a_log_is_replaced(client, given):
    answer = client.get("/", headers={"x-request-id": given})
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_route_that_is_not_there_has_an_id_too(client):
    assert client.get("/nothing").headers["x-request-id"].startswith("req_")
