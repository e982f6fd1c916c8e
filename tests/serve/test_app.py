"""The application as a whole, without models: what surrounds every route."""

from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from serve.app import create_app
from serve.config import Settings
from serve.http.drain import Drain

ORIGIN = "https://app.example"


class NoModels(SimpleNamespace):
    """A runtime before anything is loaded."""

    ready = False

    def models(self) -> list:
        return []

    def stats(self) -> dict:
        return {"chat": {"slots_live": 0}, "documents": 0}

    def documents(self) -> list:
        raise RuntimeError("a bug, with a secret in its text")


def client_of(drain: Drain | None = None, **settings) -> TestClient:
    app = create_app(NoModels(), Settings(**settings), drain=drain)
    return TestClient(app, base_url="http://localhost:8080", raise_server_exceptions=False)


def test_readiness_follows_the_models_and_the_drain():
    drain = Drain()
    client = client_of(drain)
    assert client.get("/readyz").json() == {"status": "starting"}
    assert client.get("/livez").status_code == 200
    client.app.state.services.runtime.ready = True
    assert client.get("/readyz").status_code == 200
    drain.start()
    assert (client.get("/readyz").status_code, client.get("/livez").status_code) == (503, 200)
    assert client.get("/v1/models").status_code == 503


@pytest.mark.parametrize("path", ["/nothing", "/v1/documents", "/v1/models/none"])
def test_every_error_has_an_id_an_envelope_and_lets_configured_pages_read_it(path):
    answer = client_of(cors_origins=(ORIGIN,)).get(path, headers={"origin": ORIGIN})
    assert answer.status_code in (404, 500)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["x-request-id"]
    assert "secret" not in answer.text


def test_preflights_of_openais_browser_client_pass():
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os,x-stainless-retry-count",
    }
    answer = client_of(cors_origins=(ORIGIN,)).options("/v1/chat/completions", headers=headers)
    assert answer.status_code == 200
    assert "x-stainless-os" in answer.headers["access-control-allow-headers"]


def test_without_configuration_no_page_gets_permission():
    answer = client_of().get("/v1/models", headers={"origin": ORIGIN})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_errors_are_counted_under_their_template():
    client = client_of()
    client.get("/v1/documents")
    text = client.get("/metrics").text
    assert 'tarsia_http_requests_total{method="GET",route="/v1/documents",status="5xx"} 1.0' in text


def test_uploads_have_a_limit_of_their_own():
    client = client_of(max_body_bytes=10, max_upload_bytes=1000)
    assert client.post("/v1/documents", content=b"x" * 500).json()["error"]["code"] == "invalid_value"
    assert client.post("/v1/documents", content=b"x" * 1500).status_code == 413
    assert client.post("/v1/ask", content=b"x" * 500).status_code == 413


@pytest.mark.parametrize("style", ["common", "combined", "json", "off"])
def test_each_access_log_style_serves(style):
    assert client_of(access_log=style).get("/healthz").status_code == 200
