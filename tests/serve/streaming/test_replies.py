"""The JSON of replies: log-probabilities in both shapes, and tool calls whole and in deltas."""

import json

import pytest

from engine.generate.request import Piece, TokenLogprobs, Usage
from engine.text.tool_calls import call_text
from serve.streaming.logprobs import chat_logprobs, text_logprobs
from serve.streaming.replies import Choice
from serve.streaming.tool_reply import ToolReply

WORDS = {1: b"Hi", 2: b" \xf0\x9f", 3: b"Hi", 4: b"!"}
TOKENS = [
    TokenLogprobs(1, -0.5, ((1, -0.5), (3, -2.0))),
    TokenLogprobs(2, float("-inf"), ((4, -0.1), (2, float("-inf")))),
]


def test_chats_list_each_token_with_its_bytes_and_rivals():
    found = chat_logprobs(TOKENS, WORDS.__getitem__)
    assert found is not None
    first, second = found["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("Hi", -0.5, [72, 105])
    assert [rival["logprob"] for rival in first["top_logprobs"]] == [-0.5, -2.0]
    assert (second["token"], second["logprob"], second["bytes"]) == (" \ufffd", -9999.0, [32, 240, 159])
    assert json.dumps(found, allow_nan=False)
    assert chat_logprobs([], WORDS.__getitem__) is None


def test_text_completions_list_them_in_four_columns():
    found = text_logprobs(TOKENS, WORDS.__getitem__, 7)
    assert found == {
        "tokens": ["Hi", " \ufffd"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"Hi": -0.5}, {" \ufffd": -9999.0, "!": -0.1}],
        "text_offset": [7, 9],
    }


def reply() -> ToolReply:
    return ToolReply("m", token_bytes=WORDS.__getitem__)


CALLS = call_text("f", {"a": [1, "}"]}) + "\n" + call_text("g", {})


def test_a_whole_reply_lists_its_calls():
    choice = Choice()
    choice.add(Piece("Wait. "))
    choice.add(Piece(CALLS, finish_reason="stop"))
    (found,) = reply().whole([choice], Usage(1, 2))["choices"]
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] == "Wait. "
    calls = [call["function"] for call in found["message"]["tool_calls"]]
    assert calls == [{"name": "f", "arguments": '{"a": [1, "}"]}'}, {"name": "g", "arguments": "{}"}]
    assert len({call["id"] for call in found["message"]["tool_calls"]}) == 2


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_stream_gives_calls_in_deltas(size: int):
    one = reply()
    text = "Wait. " + CALLS
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    chunks = [chunk for piece in pieces for chunk in one.increments(0, piece)]
    chunks += one.endings(0, "stop")
    said, calls = "", {}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        said += delta.get("content", "")
        for part in delta.get("tool_calls", []):
            if "id" in part:
                calls[part["index"]] = [part["function"]["name"], part["type"], ""]
            calls[part["index"]][2] += part["function"]["arguments"]
    assert said == "Wait. "
    assert calls == {0: ["f", "function", '{"a": [1, "}"]}'], 1: ["g", "function", "{}"]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_reply_without_calls_ends_as_it_did(reason):
    one = reply()
    assert [chunk["choices"][0]["delta"] for chunk in one.increments(0, "a <tool")] == [{"content": "a "}]
    held, last = one.endings(0, reason)
    assert held["choices"][0]["delta"] == {"content": "<tool"}
    assert last["choices"][0]["finish_reason"] == reason


def test_choices_are_parsed_apart():
    one = reply()
    list(one.increments(0, "<tool_call>\n"))
    assert next(one.increments(1, "plain"))["choices"][0]["delta"] == {"content": "plain"}
