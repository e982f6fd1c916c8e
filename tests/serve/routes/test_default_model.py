"""Requests that name no model get the one that is configured, also where that is a path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve.app import create_app
from serve.config import Settings
from serve.runtime import Runtime


@pytest.fixture(scope="module")
def client(minilm_path: Path) -> Iterator[TestClient]:
    settings = Settings(embedding_model=str(minilm_path))
    runtime = Runtime.ephemeral(settings, with_chat=False)
    yield TestClient(create_app(runtime, settings), base_url="http://localhost:8080")
    runtime.close()


def test_no_name_is_the_loaded_model(client: TestClient, minilm_path: Path) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a lamp"})
    assert (answer.status_code, answer.json()["model"]) == (200, minilm_path.name)


def test_where_no_model_of_the_kind_is_loaded_the_error_tells_what_there_is(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "model_not_found")
    assert "no model for chat is loaded" in error["message"]
