"""No body, however odd, gets anything but an answer or a 4xx in the envelope."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
PART = st.fixed_dictionaries({}, optional={"type": st.just("text") | JSON, "text": JSON})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "system", "assistant", "tool"]) | JSON,
        "content": st.text(max_size=20) | st.lists(PART, max_size=3) | JSON,
    },
)
CHAT = st.fixed_dictionaries(
    {"max_tokens": st.just(1) | JSON},
    optional={
        "messages": st.lists(MESSAGE, max_size=3) | JSON,
        "stream": st.booleans() | JSON,
        "stream_options": st.fixed_dictionaries({"include_usage": JSON}) | JSON,
        "temperature": st.floats(0, 2) | JSON,
        "top_p": st.floats(0, 1) | JSON,
        "top_k": JSON,
        "seed": st.integers() | JSON,
        "stop": st.lists(st.text(max_size=3), max_size=3) | JSON,
        "n": JSON,
        "logit_bias": st.dictionaries(st.sampled_from(["1", "2", "x", "99999999"]), st.floats(), max_size=2)
        | JSON,
        "logprobs": st.booleans() | JSON,
        "top_logprobs": st.integers(-1, 30) | JSON,
        "stop_token_ids": st.lists(st.integers(-1, 60000), max_size=2) | JSON,
        "min_tokens": JSON,
        "response_format": JSON,
        "frequency_penalty": JSON,
        "tools": st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": JSON}), max_size=2)
        | JSON,
        "tool_choice": st.sampled_from(["none", "auto", "required"]) | JSON,
        "guided_json": JSON,
        "guided_regex": st.text(max_size=8) | JSON,
        "guided_choice": st.lists(st.text(max_size=3), max_size=3) | JSON,
        "priority": st.integers(-12, 12) | JSON,
        "timeout": st.floats(30, 60) | JSON,
    },
)
EMBEDDING = st.fixed_dictionaries(
    {"input": st.text(max_size=30) | st.lists(st.text(max_size=10), max_size=3) | JSON},
    optional={"encoding_format": st.sampled_from(["float", "base64"]) | JSON, "dimensions": JSON},
)
ASK = st.fixed_dictionaries(
    {"question": st.text(max_size=30) | JSON},
    optional={"document_ids": st.lists(st.text(max_size=5), max_size=2) | JSON, "generate": st.just(False)},
)


@pytest.mark.parametrize(
    ("path", "bodies", "count"),
    [
        ("/v1/chat/completions", CHAT, 60),
        ("/v1/completions", CHAT.map(lambda body: body | {"prompt": body.pop("messages", "a")}), 30),
        ("/v1/embeddings", EMBEDDING, 50),
        ("/v1/ask", ASK, 40),
    ],
)
def test_odd_bodies_are_answered_or_refused(http, server, path, bodies, count):
    @settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(bodies)
    def check(body):
        answer = http.post(path, content=json.dumps(body))
        assert answer.status_code in (200, 400, 404), answer.text
        if answer.status_code != 200:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        elif answer.headers["content-type"].startswith("text/event-stream"):
            assert answer.text.endswith("data: [DONE]\n\n")

    check()
    assert "Traceback" not in server.log()
