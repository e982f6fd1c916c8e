"""kill -9 after an upload, then SIGTERM under load, on servers of their own."""

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path, minilm_path: Path) -> Path:
    return tmp_path_factory.mktemp("stopping")


@pytest.fixture(scope="module")
def document(folder: Path) -> dict:
    """Uploaded to a server that was killed as soon as it had answered."""
    server = ServerProcess(folder)
    upload = {"file": ("tide.md", b"# Tides\n\nThe spring tide of Orl rises by nine metres.\n")}
    record = httpx2.post(f"{server.url}/v1/documents", files=upload, timeout=60).json()
    server.signal(signal.SIGKILL)
    server.process.wait(10)
    return record


@pytest.fixture(scope="module")
def restarted(folder: Path, document: dict):
    server = ServerProcess(folder, TARSIA_DRAIN_SECONDS="1.5")
    yield server
    server.process.kill()


def test_an_acknowledged_document_survives_kill_9(restarted, document):
    assert httpx2.get(f"{restarted.url}/v1/documents/{document['id']}").json() == document
    body = {"question": "How far does the spring tide of Orl rise?", "generate": False}
    answer = httpx2.post(f"{restarted.url}/v1/ask", json=body, timeout=60).json()
    assert "nine metres" in answer["answer"]


def test_a_drained_server_says_so_ends_its_streams_and_exits_0_in_time(restarted):
    url = restarted.url
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=BODY, timeout=30) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        next(lines)
        began = time.monotonic()
        restarted.signal(signal.SIGTERM)
        time.sleep(0.4)
        assert httpx2.get(f"{url}/readyz").status_code == 503
        refused = httpx2.get(f"{url}/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        last = list(lines)[-1]
    assert "shutting down" in json.loads(last.removeprefix("data: "))["error"]["message"]
    assert restarted.wait(10) == 0
    assert time.monotonic() - began < 8
    assert "Traceback" not in restarted.log()
