import asyncio
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from serve.errors import HttpError
from serve.http.body import read_body


class Inner(BaseModel):
    role: str
    content: str | list[str] | None = None


class Outer(BaseModel):
    model_config = ConfigDict(strict=True)

    items: list[Inner]
    count: Annotated[int, Field(ge=1)] = 1


def read(content: bytes) -> Outer:
    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    return asyncio.run(read_body(Request({"type": "http", "headers": []}, receive), Outer))


def test_unknown_fields_are_ignored():
    assert read(b'{"items": [{"role": "a", "x": 1}], "stainless": true}').items[0].role == "a"


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"items": [}', "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b"[]", "invalid_value", None),
        (b"{}", "missing_required_parameter", "items"),
        (b'{"items": [{}]}', "missing_required_parameter", "items[0].role"),
        (b'{"items": [{"role": "a", "content": 1}]}', "invalid_value", "items[0].content"),
        (b'{"items": [{"role": "a", "content": [1]}]}', "invalid_value", "items[0].content"),
        (b'{"items": [], "count": 0}', "invalid_value", "count"),
        (b'{"items": [], "count": "1"}', "invalid_value", "count"),
    ],
)
def test_what_is_wrong_is_said_as_openai_says_it(content, code, param):
    with pytest.raises(HttpError) as raised:
        read(content)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, code, param)
    assert "\n" not in str(raised.value)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_are_worse_than_a_400(content):
    with pytest.raises(HttpError) as raised:
        read(content)
    assert raised.value.status == 400
