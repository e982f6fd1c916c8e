import io
import json
import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.http.context import REQUEST_ID
from serve.telemetry.logs import (
    ACCESS_FORMATS,
    AccessRecord,
    JsonFormatter,
    TextFormatter,
    escape,
    mask_secrets,
)


def record(**changes) -> AccessRecord:
    fields = {
        "time": datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC),
        "client": "127.0.0.1",
        "method": "GET",
        "target": "/v1/models",
        "http_version": "1.1",
        "status": 200,
        "bytes": 12,
        "seconds": 0.5,
        "referer": "",
        "user_agent": "",
        "request_id": "req_1",
    }
    return AccessRecord(**(fields | changes))


def test_common_is_the_line_that_log_tools_know():
    expected = '127.0.0.1 - - [01/Mar/2026:12:00:05 +0000] "GET /v1/models HTTP/1.1" 200 12'
    assert ACCESS_FORMATS["common"](record()) == expected


def test_missing_fields_are_dashes():
    line = ACCESS_FORMATS["combined"](record(client="", bytes=0))
    assert line.startswith("- - - [") and line.endswith(' 200 - "-" "-"')


@pytest.mark.parametrize("style", ACCESS_FORMATS)
@settings(max_examples=50)
@given(target=st.text(), agent=st.text())
def test_no_client_can_start_a_line_of_its_own(style, target, agent):
    line = ACCESS_FORMATS[style](record(target=target, user_agent=agent, referer=agent))
    assert len(line.splitlines()) == 1


@settings(max_examples=50)
@given(st.text())
def test_no_client_can_close_a_quoted_field(text):
    unescaped = escape(text).replace("\\\\", "").replace('\\"', "")
    assert '"' not in unescaped


@pytest.mark.parametrize("name", ["api_key", "KEY", "access_token", "password", "client_secret", "auth"])
@pytest.mark.parametrize("style", ACCESS_FORMATS)
def test_secrets_in_a_query_never_reach_the_log(style, name):
    line = ACCESS_FORMATS[style](
        record(target=f"/x?page=2&{name}=hunter2&z=1", referer=f"http://h/?{name}=hunter2")
    )
    assert "hunter2" not in line
    assert "page=2" in line and "z=1" in line


def test_a_target_without_secrets_is_left_alone():
    assert mask_secrets("/v1/x?page=2&sort=a") == "/v1/x?page=2&sort=a"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_lines_carry_the_request_id_and_the_traceback(formatter):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("test.logs")
    logger.propagate = False
    logger.handlers = [handler]
    token = REQUEST_ID.set("req_7")
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("it\nfailed")
    finally:
        REQUEST_ID.reset(token)
    text = stream.getvalue()
    assert "req_7" in text and "ValueError: wrong" in text and "it\nfailed" not in text
    if isinstance(formatter, JsonFormatter):
        assert json.loads(text)["message"] == "it\nfailed"
