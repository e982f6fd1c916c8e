"""A client that goes away frees its slot at once, whether it was streaming or waiting."""

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

BODY = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Write a very long story about the sea."}],
    "max_tokens": 1500,
    "temperature": 1.5,
    "seed": 3,
}


def begin(url: str, **options) -> socket.socket:
    """Sends a chat and reads nothing of its answer."""
    content = json.dumps(BODY | options).encode()
    where = urlsplit(url)
    client = socket.create_connection((where.hostname, where.port), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    client.sendall(head.encode() + content)
    return client


def wait_until(condition, seconds: float = 20.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [True, False])
def test_its_slot_is_free_within_a_step_or_two(server, chat_stats, stream):
    wait_until(lambda: chat_stats()["slots_live"] == 0)
    client = begin(server.url, stream=stream)
    wait_until(lambda: chat_stats()["slots_live"] == 1)
    if stream:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    client.close()
    assert wait_until(lambda: chat_stats()["slots_live"] == 0) < 2


def test_the_other_chats_go_on(server, client, chat_stats):
    leaving = begin(server.url, stream=True)
    wait_until(lambda: chat_stats()["slots_live"] == 1)
    staying = client.chat.completions.create(**BODY | {"max_tokens": 40, "stream": True})
    first = next(staying)
    leaving.close()
    assert first.choices[0].delta.role == "assistant"
    assert list(staying)[-1].choices[0].finish_reason in ("stop", "length")


def test_a_full_queue_is_said_at_once_and_costs_the_others_nothing(server, http, chat_stats):
    crowd = [begin(server.url, stream=True, n=16) for _ in range(4)]
    wait_until(lambda: chat_stats()["queued"] + chat_stats()["slots_live"] == 64)
    answer = http.post("/v1/chat/completions", json=BODY | {"n": 5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    for client in crowd:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.close()
    wait_until(lambda: chat_stats()["queued"] + chat_stats()["slots_live"] == 0)


def test_it_leaves_no_traceback_and_is_counted(server, http):
    assert "Traceback" not in server.log()
    metrics = http.get("/metrics").text
    assert 'tarsia_generations_cancelled_total{reason="client"}' in metrics
    assert 'tarsia_http_requests_total{method="POST",route="/v1/chat/completions",status="4xx"}' in metrics
