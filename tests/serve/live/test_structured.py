"""Structured outputs and tool calls by the real client of OpenAI: they parse, whole and streamed."""

import json
import re

import jsonschema
import openai
import pytest

MODEL = "smollm2-135m-instruct"
ASK = [{"role": "user", "content": "What is the weather in Rome?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
}


def ask(client: openai.OpenAI, **options):
    return client.chat.completions.create(
        model=MODEL, messages=ASK, **{"max_tokens": 120, "temperature": 1.5, "seed": 3} | options
    )


def test_a_json_schema_is_followed(client):
    given = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    for choice in ask(client, response_format=given, n=3).choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_a_json_object_is_json(client):
    choice = ask(client, response_format={"type": "json_object"}, temperature=0).choices[0]
    assert choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


def test_guided_text_matches(client):
    text = ask(client, extra_body={"guided_regex": "[A-Z]{3}-\\d{2}"}).choices[0].message.content
    assert re.fullmatch(r"[A-Z]{3}-\d{2}", text)
    text = ask(client, extra_body={"guided_choice": ["sunny", "rainy"]}).choices[0].message.content
    assert text in ("sunny", "rainy")


def test_a_required_tool_is_called(client):
    choice = ask(client, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather" and call.id.startswith("call_")
    assert choice.message.content is None
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_a_streamed_call_adds_up_to_the_whole_one(client):
    options = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    whole = ask(client, **options).choices[0].message.tool_calls[0].function
    names, arguments, reasons = [], "", []
    for chunk in ask(client, stream=True, **options):
        reasons.append(chunk.choices[0].finish_reason)
        for part in chunk.choices[0].delta.tool_calls or []:
            assert part.index == 0
            names += [part.function.name] if part.function.name else []
            arguments += part.function.arguments or ""
    assert (names, arguments) == ([whole.name], whole.arguments)
    assert reasons[-1] == "tool_calls" and set(reasons[:-1]) == {None}


def test_an_optional_tool_gives_text_or_a_right_call(client):
    choice = ask(client, tools=[WEATHER], max_tokens=60, n=4)
    for one in choice.choices:
        for call in one.message.tool_calls or []:
            if one.finish_reason == "tool_calls":
                jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
        assert one.message.content or one.message.tool_calls


def test_a_conversation_with_a_call_and_its_result_goes_on(client):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[
            *ASK,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        max_tokens=12,
    )
    assert reply.choices[0].message.content


def as_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"response_format": as_format({"type": "odd"})}, "response_format"),
        # The parser's own arithmetic on this one overflows the stack of the process.
        ({"response_format": as_format({"enum": [-(2**63)]})}, "response_format"),
        ({"extra_body": {"guided_regex": "a("}}, "guided_regex"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "no"}}},
            "tool_choice",
        ),
    ],
)
def test_what_cannot_be_followed_is_a_400_that_names_the_field(client, options, param):
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, **options)
    assert raised.value.param == param
