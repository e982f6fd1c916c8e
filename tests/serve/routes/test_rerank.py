"""Ranking over the wire, by a real runtime with a tiny reranker and the real embedding model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from engine import Engine
from serve.app import create_app
from serve.config import Settings
from serve.runtime import Runtime
from tests.engine.rerank.tiny import reranker_folder

TEXTS = ["w1 w2", "w9 w8 w7", "w3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return reranker_folder(tmp_path_factory.mktemp("models") / "tiny-reranker")


@pytest.fixture(scope="module")
def client(folder, minilm_path) -> Iterator[TestClient]:
    settings = Settings(rerank_model=str(folder))
    runtime = Runtime.ephemeral(settings, with_chat=False)
    yield TestClient(create_app(runtime, settings), base_url="http://localhost:8080")
    runtime.close()


def post(client: TestClient, path: str = "/v1/rerank", **body: object) -> dict:
    answer = client.post(path, json={"query": "w1", "documents": TEXTS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_ranking_is_the_engines(client, folder):
    expected = Engine.load(folder).rerank("w1", TEXTS)
    reply = post(client)
    assert (reply["model"], reply["scoring"]) == ("tiny-reranker", "cross_encoder")
    assert [item["index"] for item in reply["results"]] == [result.index for result in expected.results]
    assert [item["relevance_score"] for item in reply["results"]] == pytest.approx(
        [result.score for result in expected.results], abs=1e-6
    )
    assert reply["usage"] == {"prompt_tokens": expected.tokens, "total_tokens": expected.tokens}
    assert all("document" not in item for item in reply["results"])


def test_top_n_and_texts_come_back_when_asked_for(client):
    documents = [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]
    reply = post(
        client, "/rerank", documents=documents, top_n=2, return_documents=True, model="tiny-reranker"
    )
    assert len(reply["results"]) == 2
    for item in reply["results"]:
        assert item["document"] == {"text": TEXTS[item["index"]]}


def test_the_embedding_model_ranks_only_when_it_is_named_and_the_reply_says_how(client):
    reply = post(
        client, model="all-minilm-l6-v2", query="a happy person", documents=["a sunny day", "a happy dog"]
    )
    assert reply["scoring"] == "bi_encoder"
    assert [item["index"] for item in reply["results"]] == [1, 0]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"documents": []}, 400, "documents"),
        ({"documents": ["a"] * 1025}, 400, "documents"),
        ({"documents": [3]}, 400, "documents[0]"),
        ({"query": ""}, 400, "query"),
        ({"top_n": 0}, 400, "top_n"),
        ({"query": None}, 400, "query"),
        ({"model": "nobody"}, 404, None),
    ],
)
def test_what_is_wrong_is_named(client, body, status, param):
    answer = client.post("/v1/rerank", json={"query": "w1", "documents": TEXTS, **body})
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


def test_it_is_listed_among_the_models(client):
    kinds = {model["id"]: model["kind"] for model in client.get("/v1/models").json()["data"]}
    assert kinds == {
        "all-minilm-l6-v2": "embedding",
        "tiny-reranker": "rerank",
        "vit-fashion": "vision",
    }


def test_without_a_reranker_the_error_says_what_to_set(minilm_path):
    runtime = Runtime.ephemeral(Settings(), with_chat=False)
    answer = TestClient(create_app(runtime, Settings()), base_url="http://localhost:8080").post(
        "/v1/rerank", json={"query": "a", "documents": ["b"]}
    )
    runtime.close()
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "feature_disabled")
    assert "rerank_model" in answer.json()["error"]["message"]
