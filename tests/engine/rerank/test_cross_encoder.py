"""Each pair of texts scores what it scores alone, through the tokenizer library's own pairs."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from engine import Engine
from engine.errors import BadCheckpoint, InvalidRequest, UnsupportedInput, UnsupportedModel
from engine.models import encoder
from engine.rerank.cross_encoder import CrossEncoder
from engine.rerank.ranking import MAX_DOCUMENTS, ranking
from engine.weights import load_checkpoint
from tests.engine.rerank.tiny import PARITY, WORDS, reranker_folder, tokenizer

QUERY = "w1 w2 w3 w4 w5"


def document(length: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def alone(folder: Path, query: str, text: str) -> float:
    """The logit of one unpadded pair."""
    model, pairs = load_checkpoint(folder), tokenizer()
    pairs.enable_truncation(model.config.max_seq_length, strategy="longest_first")
    found = pairs.encode(query, text)
    rows = (np.array([row]) for row in (found.ids, found.attention_mask, found.type_ids))
    return float(jax.jit(encoder.scores, static_argnums=1)(model.params, model.config, *rows)[0, 0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return reranker_folder(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="module")
def engine(folder) -> Engine:
    return Engine.load(folder)


def test_every_document_scores_what_it_scores_alone_in_sorted_order(engine, folder):
    texts = [document(length, seed) for seed, length in enumerate((3, 40, 9, 1, 70, 25, 0))]
    found = engine.rerank(QUERY, texts)
    logits = np.array([alone(folder, QUERY, text) for text in texts])
    assert found.scoring == "cross_encoder"
    assert [result.index for result in found.results] == np.argsort(-logits).tolist()
    expected = 1 / (1 + np.exp(-np.sort(logits)[::-1].astype(np.float64)))
    np.testing.assert_allclose([result.score for result in found.results], expected, atol=1e-5)
    assert found.tokens == sum(5 + 3 + length for length in (3, 40, 9, 1, 70, 25, 0))


@pytest.mark.parametrize(("query", "text"), [(5, 300), (300, 5), (300, 200), (61, 64), (62, 63), (200, 201)])
def test_pairs_that_are_too_long_are_cut_as_the_tokenizer_library_cuts_them(engine, query, text):
    pairs = tokenizer()
    pairs.enable_truncation(128, strategy="longest_first")
    first, second = document(query, 1), document(text, 2)
    theirs = pairs.encode(first, second)
    [ours] = engine.tokenizer.encode_pairs(first, [second], max_length=128)
    assert (ours.ids, ours.types) == (theirs.ids, theirs.type_ids)


@pytest.mark.parametrize("family", ["modernbert_reranker", "xlm_roberta_reranker"])
def test_the_other_families_rank_too(family, tmp_path):
    folder = reranker_folder(tmp_path / "model", family)
    texts = [document(length, length) for length in (4, 18)]
    scores = {result.index: result.score for result in Engine.load(folder).rerank(QUERY, texts).results}
    model, pairs = load_checkpoint(folder), tokenizer()
    for index, text in enumerate(texts):
        ids = np.array([pairs.encode(QUERY, text).ids])
        logit = encoder.scores(model.params, model.config, ids, np.ones_like(ids))[0, 0]
        assert scores[index] == pytest.approx(1 / (1 + np.exp(-float(logit))), abs=1e-5)


def test_top_n_takes_the_best(engine):
    texts = [document(6, seed) for seed in range(9)]
    whole = engine.rerank(QUERY, texts).results
    assert engine.rerank(QUERY, texts, top_n=3).results == whole[:3]
    assert engine.rerank(QUERY, texts, top_n=50).results == whole
    assert engine.rerank(QUERY, []).results == ()


def test_scores_too_high_to_differ_are_still_in_order():
    found = ranking(np.float32([40, 50, 45]), "cross_encoder", 0, None, scores=np.ones(3, np.float32))
    assert [result.index for result in found.results] == [1, 2, 0]


def test_a_request_out_of_bounds_is_refused_and_its_field_named(engine):
    for field, call in {
        "query": lambda: engine.rerank("  ", ["a"]),
        "documents": lambda: engine.rerank("a", ["b"] * (MAX_DOCUMENTS + 1)),
        "top_n": lambda: engine.rerank("a", ["b"], top_n=0),
    }.items():
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.param == field


def test_int8_weights_score_nearly_the_same(engine, folder):
    texts = [document(6, seed) for seed in range(5)]
    exact, packed = (
        {result.index: result.score for result in loaded.rerank(QUERY, texts).results}
        for loaded in (engine, Engine.load(folder, quant="int8"))
    )
    assert max(abs(exact[index] - packed[index]) for index in exact) < 0.02


def test_other_models_are_refused(engine, folder, tmp_path):
    with pytest.raises(UnsupportedInput, match="is a reranker: it cannot embed"):
        engine.embed(["a"])
    with pytest.raises(UnsupportedInput, match="is a reranker: it cannot chat"):
        engine.chat([{"role": "user", "content": "Hi"}])
    with pytest.raises(UnsupportedModel, match="no classification head"):
        CrossEncoder(load_checkpoint(PARITY / "bert_minilm"))
    with pytest.raises(BadCheckpoint, match=r"no tokenizer\.json"):
        CrossEncoder(load_checkpoint(PARITY / "bert_reranker"))
    labels = {"id2label": {"0": "no", "1": "yes"}}
    with pytest.raises(UnsupportedModel, match="classifier of 2 labels"):
        load_checkpoint(reranker_folder(tmp_path / "two", **labels))
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]


def test_the_pure_model_takes_token_types(engine):
    io = np.load(PARITY / "bert_reranker" / "io.npz")
    inputs = {key: io[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    np.testing.assert_allclose(engine.model(engine.params, inputs), io["logits"], atol=2e-4)
