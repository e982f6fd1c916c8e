import asyncio
import json
import logging

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.errors import CLIENT_CLOSED_REQUEST
from serve.http.middleware.access_log import AccessLog
from serve.telemetry.logs import ACCESS_LOGGER


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger(ACCESS_LOGGER), "propagate", True)
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    return caplog


def app_logged_as(style: str) -> AccessLog:
    ticks = iter([10.0, 10.25])
    app = Starlette(routes=[Route("/x", lambda request: PlainTextResponse("12345"))])
    return AccessLog(app, style, clock=lambda: next(ticks))


def test_a_request_is_one_json_line_with_status_size_and_time(lines):
    TestClient(app_logged_as("json")).get("/x?page=2", headers={"user-agent": "curl/8"})
    record = json.loads(lines.messages[-1])
    expected = {"method": "GET", "target": "/x?page=2", "status": 200, "bytes": 5, "seconds": 0.25}
    assert record.items() >= expected.items()
    assert record["user_agent"] == "curl/8"


def test_combined_quotes_what_the_client_claims(lines):
    TestClient(app_logged_as("combined")).get(
        "/x", headers={"user-agent": 'a"b', "referer": "http://h/p?token=1"}
    )
    assert lines.messages[-1].endswith('"GET /x HTTP/1.1" 200 5 "http://h/p" "a\\"b"')


def test_a_client_that_left_before_the_answer_is_499(lines):
    async def silent(scope, receive, send):
        return None

    scope = {"type": "http", "method": "POST", "path": "/v1/ask", "query_string": b"", "headers": []}
    asyncio.run(AccessLog(silent, "common")(scope | {"http_version": "1.1"}, None, None))
    assert f'"POST /v1/ask HTTP/1.1" {CLIENT_CLOSED_REQUEST} -' in lines.messages[-1]
