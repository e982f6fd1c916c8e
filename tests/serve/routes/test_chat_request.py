import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.request import SamplingParams
from serve.routes.chat_request import ChatRequest
from serve.routes.completions import CompletionRequest

HELLO = [{"role": "user", "content": "hello"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def chat(**fields) -> ChatRequest:
    return ChatRequest.model_validate({"messages": HELLO} | fields)


def test_a_bare_request_gets_the_defaults_of_the_engine():
    assert chat().sampling() == [SamplingParams()]
    assert chat().chat() == HELLO


def test_every_sampling_field_reaches_the_engine():
    fields = {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "typical_p": 0.8,
        "min_tokens": 2,
        "ignore_eos": True,
        "seed": 7,
    }
    lists = {"stop": ["a", "b"], "stop_token_ids": [4, 5], "logit_bias": {"50": -100, "7": 1.5}}
    wanted = SamplingParams(
        **fields, stop=("a", "b"), stop_token_ids=(4, 5), logit_bias=((50, -100.0), (7, 1.5)), logprobs=3
    )
    assert chat(**fields, **lists, logprobs=True, top_logprobs=3).sampling() == [wanted]


def test_how_many_log_probabilities_are_asked_for():
    assert chat(logprobs=True).sampling()[0].logprobs == 0
    assert chat(logprobs=False).sampling()[0].logprobs is None
    assert CompletionRequest(prompt="a", logprobs=2).sampling()[0].logprobs == 2
    assert CompletionRequest(prompt="a").sampling()[0].logprobs is None
    with pytest.raises(UnsupportedInput, match="echo"):
        CompletionRequest(prompt="a", logprobs=2, echo=True).refuse_unsupported()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"the": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 1000}}, "logit_bias"),
    ],
)
def test_odd_log_probabilities_and_biases_name_their_field(fields, param):
    with pytest.raises(InvalidRequest) as raised:
        chat(**fields).sampling()
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("stop", "expected"), [("x", ("x",)), (["x"], ("x",)), ([], ()), ("", ()), (None, ())]
)
def test_stop_is_a_string_or_a_list(stop, expected):
    assert chat(stop=stop).sampling()[0].stop == expected


def test_the_newer_name_of_max_tokens_wins():
    assert chat(max_tokens=5, max_completion_tokens=7).sampling()[0].max_tokens == 7
    assert chat(max_tokens=5).sampling()[0].max_tokens == 5
    assert CompletionRequest(prompt="a").sampling()[0].max_tokens == 16


def test_choices_with_a_seed_differ_and_repeat():
    seeds = [one.seed for one in chat(n=3, seed=41).sampling()]
    assert seeds == [41, 42, 43]
    assert [one.seed for one in chat(n=2).sampling()] == [None, None]


@pytest.mark.parametrize("field", ["temperature", "top_p", "presence_penalty"])
def test_a_value_out_of_range_names_its_field(field):
    with pytest.raises(InvalidRequest) as raised:
        chat(**{field: 99}).sampling()
    assert raised.value.param == field


def test_developer_messages_are_system_messages():
    assert chat(messages=[{"role": "developer", "content": "x"}]).chat()[0]["role"] == "system"


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).chat()[0]["content"] == "a\nb"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_a_part_that_is_not_text_is_refused_by_its_place(kind):
    parts = [{"type": "text", "text": "see"}, {"type": kind, kind: {"url": "data:,"}}]
    with pytest.raises(UnsupportedInput) as raised:
        chat(messages=[*HELLO, {"role": "user", "content": parts}]).chat()
    assert raised.value.param == "messages[1].content[1]"


@pytest.mark.parametrize(
    ("message", "error", "param"),
    [
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]},
            InvalidRequest,
            "messages[0].tool_calls[0]",
        ),
        (
            {"role": "user", "content": "", "tool_calls": [CALL]},
            InvalidRequest,
            "messages[0].tool_calls",
        ),
        ({"role": "wizard", "content": "x"}, InvalidRequest, "messages[0].role"),
        ({"role": "user"}, InvalidRequest, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text"}]}, InvalidRequest, "messages[0].content[0].text"),
    ],
)
def test_messages_that_mean_nothing_here_are_refused(message, error, param):
    with pytest.raises(error) as raised:
        chat(messages=[message]).chat()
    assert raised.value.param == param


def test_no_messages_at_all_are_refused():
    with pytest.raises(InvalidRequest):
        chat(messages=[]).chat()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{}]}, "functions"),
        ({"audio": {"voice": "x"}}, "audio"),
    ],
)
def test_what_we_cannot_honour_is_refused_and_not_ignored(fields, param):
    with pytest.raises(UnsupportedInput) as raised:
        chat(**fields).refuse_unsupported()
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("fields", "kind", "part"),
    [
        ({"response_format": {"type": "json_object"}}, "json", '"object"'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "json",
            '"integer"',
        ),
        ({"guided_json": SCHEMA}, "json", '"integer"'),
        ({"guided_regex": "[ab]"}, "regex", "[ab]"),
        ({"guided_choice": ["x", "y"]}, "lark", '"x" | "y"'),
        ({"tools": [TOOL], "tool_choice": "required"}, "lark", 'start: "<tool_call>"'),
        ({"tools": [TOOL]}, "lark", "start: TEXT | calls"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "lark", "call0"),
    ],
)
def test_what_a_reply_must_look_like(fields, kind, part):
    constraint = chat(**fields).requests((1,))[0].constraint
    assert constraint is not None and constraint.kind == kind and part in constraint.source


def test_a_named_tool_is_the_only_one_that_may_be_called():
    other = {"type": "function", "function": {"name": "g"}}
    named = {"type": "function", "function": {"name": "g"}}
    tools, constraint = chat(tools=[TOOL, other], tool_choice=named).tools_and_constraint()
    assert [tool.name for tool in tools] == ["f", "g"]
    assert constraint is not None and "f" not in constraint.source.split("call0:")[1].split("arguments")[0]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "guided_regex": "a"}, "tools"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"priority": 11}, "priority"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_what_contradicts_itself_names_its_field(fields, param):
    with pytest.raises(InvalidRequest) as raised:
        chat(**fields).requests((1,))
    assert raised.value.param == param


def test_calls_and_their_results_reach_the_template():
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "7"},
    ]
    _, assistant, result = chat(messages=messages).chat()
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert result == {"role": "tool", "content": "7"}


def test_priority_and_timeout_reach_the_scheduler():
    request = chat(priority=-3, timeout=2.5).requests((1,))[0]
    assert (request.priority, request.timeout) == (-3, 2.5)


def test_the_same_fields_switched_off_are_fine():
    off = {"tools": [], "logprobs": False, "logit_bias": {}, "response_format": {"type": "text"}}
    chat(**off, tool_choice="none", parallel_tool_calls=True, user="me").refuse_unsupported()


@settings(max_examples=60)
@given(st.text(), st.sampled_from(["system", "developer", "user", "assistant"]))
def test_text_is_handed_on_unchanged(text, role):
    assert chat(messages=[{"role": role, "content": text}]).chat()[0]["content"] == text
