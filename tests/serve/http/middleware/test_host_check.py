import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.http.middleware.error_envelope import ErrorEnvelope
from serve.http.middleware.host_check import HostCheck


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("in"))])
    return TestClient(ErrorEnvelope(HostCheck(app, ["box.lan"])))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
        "box.lan:80",
        "localhost.",
    ],
)
def test_names_of_this_machine_and_configured_ones_pass(client, host):
    assert client.get("/", headers={"host": host}).text == "in"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8080",
        "[::2]",
        "",
        "127.0.0.1@evil",
        "sub.box.lan",
    ],
)
def test_a_rebound_name_is_refused_with_the_setting_that_would_allow_it(client, host):
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"
    assert "allowed_hosts" in answer.json()["error"]["message"]
