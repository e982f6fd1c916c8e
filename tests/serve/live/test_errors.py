"""What is wrong gets the right class, status and code, in one envelope, whoever found it out."""

import json

import openai
import pytest

MODEL = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f"}}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]


@pytest.mark.parametrize(
    ("options", "error", "code", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", None),
        ({"model": EMBEDDER}, openai.BadRequestError, "unsupported_input", "model"),
        (
            {"messages": [{"role": "user", "content": "word " * 5000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            None,
        ),
        (
            {"messages": [{"role": "user", "content": IMAGE}]},
            openai.BadRequestError,
            "unsupported_input",
            "messages[0].content[0]",
        ),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_value", "max_tokens"),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        ({"tools": [TOOL, TOOL]}, openai.BadRequestError, "invalid_value", "tools"),
        (
            {"tools": [{"type": "function"}]},
            openai.BadRequestError,
            "missing_required_parameter",
            "tools[0].function",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            openai.BadRequestError,
            "invalid_value",
            "tool_choice",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_chat_raises_what_openai_would(client, options, error, code, param, stream):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 4, "stream": stream} | options
    with pytest.raises(error) as raised:
        client.chat.completions.create(**options)
    assert raised.value.code == code
    assert param is None or raised.value.param == param
    assert raised.value.request_id
    assert raised.value.body["message"] and "\n" not in raised.value.body["message"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"input": ""}, "invalid_value"),
        ({"input": []}, "invalid_value"),
        ({"input": ["a", ""]}, "invalid_value"),
        ({"input": "word " * 400}, "context_length_exceeded"),
        ({"input": "a", "dimensions": 64}, "invalid_value"),
        ({"input": [[999_999]]}, "invalid_value"),
        ({"input": ["a"] * 2049}, "invalid_value"),
        ({"input": "a", "model": MODEL}, "unsupported_input"),
    ],
)
def test_a_bad_embedding_request_is_400(client, options, code):
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(**({"model": EMBEDDER} | options))
    assert raised.value.code == code


@pytest.mark.parametrize("body", [b"", b"{", b"[1,2", b"\xff", b'{"messages": "x"', b"[" * 50_000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/ask"])
def test_malformed_json_is_400_with_its_own_code(http, path, body):
    answer = http.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/documents/doc-0", 404, "document_not_found"),
        ("DELETE", "/v1/documents/doc-0", 404, "document_not_found"),
        ("POST", "/v1/documents", 400, "invalid_value"),
    ],
)
def test_every_refusal_comes_in_the_envelope_with_a_request_id(http, method, path, status, code):
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_413(http, chunked):
    body = json.dumps({"model": MODEL, "messages": HELLO, "filler": "x" * 2**20}).encode()
    content = (body[i : i + 65536] for i in range(0, len(body), 65536)) if chunked else body
    answer = http.post("/v1/chat/completions", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_pages_of_other_sites_and_rebound_names_are_refused(http):
    assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
    assert http.post("/v1/ask", json={}, headers={"origin": "https://evil.example"}).status_code == 403
