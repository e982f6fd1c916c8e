import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.http.middleware.error_envelope import ErrorEnvelope
from serve.http.middleware.origin_check import OriginCheck


def client_for(*origins: str) -> TestClient:
    route = Route("/", lambda request: PlainTextResponse("in"), methods=["GET", "POST"])
    app = ErrorEnvelope(OriginCheck(Starlette(routes=[route]), origins))
    return TestClient(app, base_url="http://localhost:8080")


def test_clients_that_are_no_browsers_pass():
    assert client_for().post("/").text == "in"


def test_the_servers_own_pages_pass():
    assert client_for().post("/", headers={"origin": "http://localhost:8080"}).text == "in"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9999", "http://localhost"]
)
def test_a_foreign_page_cannot_post(origin):
    answer = client_for("https://app.example").post("/", headers={"origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_a_configured_origin_passes():
    headers = {"origin": "https://app.example"}
    assert client_for("https://app.example").post("/", headers=headers).text == "in"
    assert client_for("*").post("/", headers=headers).text == "in"


def test_a_change_marked_cross_site_is_refused_even_without_an_origin():
    headers = {"sec-fetch-site": "cross-site"}
    assert client_for().post("/", headers=headers).status_code == 403
    assert client_for().get("/", headers=headers).text == "in"
