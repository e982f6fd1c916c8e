"""One real server with the real models for all tests here, and the real client of OpenAI."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.serve.live.process import ServerProcess

Slots = Callable[[], dict[str, Any]]


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path, minilm_path: Path
) -> Iterator[ServerProcess]:
    """Ends by Ctrl-C, which must exit 0."""
    limits = {"TARSIA_MAX_BODY_BYTES": str(2**20), "TARSIA_MAX_UPLOAD_BYTES": str(2**21)}
    running = ServerProcess(tmp_path_factory.mktemp("server"), **limits)
    yield running
    running.signal(signal.SIGINT)
    assert running.wait(20) == 0


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def chat_stats(http: httpx2.Client) -> Slots:
    """The scheduler's counters, as the server tells them."""
    return lambda: http.get("/v1/system").json()["chat"]
