"""ColBERT, against recorded sums of an independent implementation and against its definition on texts."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import Engine
from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import encoder
from engine.ops.distance import max_sim
from engine.rerank.late_interaction import LateInteraction
from engine.weights import load_checkpoint
from tests.engine.rerank.tiny import PARITY, WORDS, reranker_folder, tokenizer

MASK, QUERY, DOCUMENT = 4, 5, 6
METADATA = {"query_maxlen": 12, "doc_maxlen": 40, "mask_punctuation": True, "attend_to_mask_tokens": False}


def folder_of(target: Path, **metadata: object) -> Path:
    folder = reranker_folder(target, "colbert")
    (folder / "artifact.metadata").write_text(json.dumps({**METADATA, **metadata}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return folder_of(tmp_path_factory.mktemp("models") / "colbert")


def vectors(model, ids: list[int], seen: list[int] | None = None) -> np.ndarray:
    """Of one unpadded row."""
    mask = np.array([seen or [1] * len(ids)])
    run = jax.jit(encoder.token_vectors, static_argnums=1)
    return np.asarray(run(model.params, model.config, np.array([ids]), mask))[0]


def defined(folder: Path, query: str, text: str, *, attend: bool = False) -> float:
    """The mean over 12 query tokens of the highest cosine with a token that is no punctuation."""
    model, words = load_checkpoint(folder), tokenizer()
    first, *rest = words.encode(query).ids
    asked = [first, QUERY, *rest]
    filled = asked + [MASK] * (12 - len(asked))
    q = vectors(model, filled, [1] * (12 if attend else len(asked)) + [0] * (12 - len(asked)) * (not attend))
    first, *rest = words.encode(text).ids
    ids = [first, DOCUMENT, *rest]
    counted = [index for index, token in enumerate(ids) if token not in (7, 8)]
    return float((q @ vectors(model, ids)[counted].T).max(1).mean())


def test_sums_of_maxima_equal_the_reference():
    model, io = load_checkpoint(PARITY / "colbert"), np.load(PARITY / "colbert" / "io.npz")
    ids, mask = io["document_ids"], io["document_mask"]
    query = jnp.asarray(vectors(model, io["query_ids"][0].tolist()))
    documents = jax.jit(encoder.token_vectors, static_argnums=1)(model.params, model.config, ids, mask)
    found = max_sim(query, documents, mask.astype(bool)) * len(query)
    np.testing.assert_allclose(found, io["max_sim"], atol=2e-4)


@pytest.mark.parametrize("attend", [False, True])
def test_texts_score_as_colbert_defines_it(tmp_path, attend):
    folder = folder_of(tmp_path / "model", attend_to_mask_tokens=attend)
    texts = ["w1 , w2 .", "w9 w8", " ".join(WORDS[:30]), "w3"]
    found = Engine.load(folder).rerank("w1 w2 w3", texts)
    expected = [defined(folder, "w1 w2 w3", text, attend=attend) for text in texts]
    assert found.scoring == "late_interaction"
    assert [result.index for result in found.results] == np.argsort(-np.array(expected)).tolist()
    for result in found.results:
        assert result.score == pytest.approx(expected[result.index], abs=1e-5)


def test_long_texts_are_cut_with_their_markers_in_place(folder):
    engine = Engine.load(folder)
    long = " ".join(WORDS[:100])
    whole, cut = (engine.rerank("w1", [text]).results[0].score for text in (long, " ".join(WORDS[:37])))
    assert whole == pytest.approx(cut, abs=1e-6)
    asked = engine.rerank(long, ["w3"])
    assert asked.tokens == 12 + 4
    assert asked.results[0].score == pytest.approx(
        engine.rerank(" ".join(WORDS[:9]), ["w3"]).results[0].score
    )


def test_a_document_without_a_token_that_counts_comes_last():
    query, documents = jnp.eye(2)[:1], jnp.stack([-jnp.eye(2)[:1] * 0.5, jnp.eye(2)[:1]])
    counted = jnp.array([[True], [False]])
    np.testing.assert_allclose(max_sim(query, documents, counted), [-0.5, -1.0])


def test_it_is_a_reranker_and_nothing_else(folder, tmp_path):
    engine = Engine.load(folder)
    assert engine.kind == "reranker"
    assert engine.rerank("w1", []).results == ()
    with pytest.raises(UnsupportedModel, match="use a ColBERT model"):
        LateInteraction(load_checkpoint(PARITY / "bert_reranker"))
    with pytest.raises(BadCheckpoint, match=r"no token \[Q\]"):
        Engine.load(folder_of(tmp_path / "marker", query_token_id="[Q]")).rerank("a", ["b"])
    with pytest.raises(BadCheckpoint, match="query_maxlen"):
        load_checkpoint(folder_of(tmp_path / "short", query_maxlen=0))
