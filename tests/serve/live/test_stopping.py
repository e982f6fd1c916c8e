"""SIGTERM under load, on a server of its own."""

import json
import signal
import time
from pathlib import Path

import httpx2
import pytest

from tests.serve.live.process import ServerProcess

BODY = {
    "messages": [{"role": "user", "content": "Write a very long story about the sea."}],
    "max_tokens": 1900,
    "temperature": 1.5,
    "seed": 3,
    "stream": True,
}


@pytest.fixture
def own_server(tmp_path: Path, smollm2_path: Path, minilm_path: Path):
    running = ServerProcess(tmp_path, TARSIA_DRAIN_SECONDS="1.5")
    yield running
    running.process.kill()


def test_a_drained_server_says_so_ends_its_streams_and_exits_0_in_time(own_server):
    url = own_server.url
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=BODY, timeout=30) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        next(lines)
        began = time.monotonic()
        own_server.signal(signal.SIGTERM)
        time.sleep(0.4)
        assert httpx2.get(f"{url}/readyz").status_code == 503
        refused = httpx2.get(f"{url}/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        last = list(lines)[-1]
    assert "shutting down" in json.loads(last.removeprefix("data: "))["error"]["message"]
    assert own_server.wait(10) == 0
    assert time.monotonic() - began < 8
    assert "Traceback" not in own_server.log()
