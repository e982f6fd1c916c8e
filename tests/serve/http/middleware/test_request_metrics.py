from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.http.middleware.request_metrics import RequestMetrics
from serve.telemetry.metrics import Metrics


def test_requests_are_counted_by_template_and_never_by_raw_path():
    metrics = Metrics()
    app = Starlette(routes=[Route("/v1/models/{id}", lambda request: PlainTextResponse("in"))])
    ticks = iter(range(100))
    client = TestClient(RequestMetrics(app, metrics, clock=lambda: next(ticks)))
    client.get("/v1/models/a")
    client.get("/v1/models/b")
    client.get("/secret/path")
    client.request("BREW", "/v1/models/a")
    text = metrics.render().decode()
    assert 'tarsia_http_requests_total{method="GET",route="/v1/models/{id}",status="2xx"} 2.0' in text
    assert 'tarsia_http_requests_total{method="GET",route="unmatched",status="4xx"} 1.0' in text
    assert 'method="other"' in text
    assert 'tarsia_http_request_duration_seconds_sum{method="GET",route="/v1/models/{id}"} 2.0' in text
    assert "secret" not in text
