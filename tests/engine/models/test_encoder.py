"""Against recorded outputs of transformers in float32, on small random encoders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.models import encoder
from engine.weights import load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
FOLDER = PARITY / "bert_minilm"
IO = np.load(FOLDER / "io.npz")
IDS, MASK = jnp.asarray(IO["input_ids"]), jnp.asarray(IO["attention_mask"])


embed = jax.jit(encoder.embed, static_argnums=1)


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(FOLDER)


@pytest.mark.parametrize("name", ["bert_minilm", "modernbert_local", "mpnet_relative", "roberta"])
def test_hidden_states_equal_the_reference(name):
    model, io = load_checkpoint(PARITY / name), np.load(PARITY / name / "io.npz")
    ids, mask = io["input_ids"], io["attention_mask"]
    got = jax.jit(encoder.hidden_states, static_argnums=1)(model.params, model.config, ids, mask)
    real = mask.astype(bool)
    np.testing.assert_allclose(np.asarray(got)[real], io["last_hidden_state"][real], atol=2e-4)


@pytest.mark.parametrize("name", ["bert_reranker", "modernbert_reranker", "xlm_roberta_reranker"])
def test_scores_of_pairs_equal_the_reference(name):
    model, io = load_checkpoint(PARITY / name), np.load(PARITY / name / "io.npz")
    inputs = (io[key] for key in ("input_ids", "attention_mask", "token_type_ids"))
    got = jax.jit(encoder.scores, static_argnums=1)(model.params, model.config, *inputs)
    assert model.kind == "reranker"
    np.testing.assert_allclose(got, io["logits"], atol=2e-4)


@pytest.mark.parametrize("name", ["modernbert_local", "mpnet_relative", "roberta"])
def test_every_family_ignores_padding(name):
    model, io = load_checkpoint(PARITY / name), np.load(PARITY / name / "io.npz")
    ids, mask = io["input_ids"][1:, :97], io["attention_mask"][1:, :97]
    wider = [np.pad(array, ((0, 0), (0, 31))) for array in (ids, mask)]
    short, long = (embed(model.params, model.config, *inputs) for inputs in ((ids, mask), wider))
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_last_pooling_takes_the_last_state_before_the_padding(model):
    config = replace(model.config, pooling="last")
    lengths = IO["attention_mask"].sum(1)
    last = IO["last_hidden_state"][np.arange(len(lengths)), lengths - 1]
    expected = last / np.linalg.norm(last, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(model.params, config, IDS, MASK), expected, atol=2e-4)


def test_mean_pooled_unit_vectors_equal_the_reference(model):
    got = embed(model.params, model.config, IDS, MASK)
    np.testing.assert_allclose(got, IO["mean_pooled_unit"], atol=2e-4)
    np.testing.assert_allclose(jnp.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_cls_pooling_takes_the_first_state(model):
    config = replace(model.config, pooling="cls")
    first = IO["last_hidden_state"][:, 0]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(model.params, config, IDS, MASK), expected, atol=2e-4)


def test_padding_changes_nothing(model):
    wider = [jnp.pad(a, ((0, 2), (0, 15)), constant_values=value) for a, value in ((IDS, 9), (MASK, 0))]
    got = embed(model.params, model.config, *wider)
    np.testing.assert_allclose(got[: len(IDS)], IO["mean_pooled_unit"], atol=2e-4)
    assert np.isfinite(got).all()


def test_int8_embeddings_point_the_same_way():
    model = load_checkpoint(FOLDER, quant="int8")
    got = np.asarray(embed(model.params, model.config, IDS, MASK))
    assert (got * IO["mean_pooled_unit"]).sum(1).min() > 0.999


def test_a_decoder_whose_folder_pools_its_states_embeds(tmp_path):
    folder = Path(shutil.copytree(PARITY / "qwen3_qknorm", tmp_path / "embedder"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    kinds = [{"type": f"sentence_transformers.models.{kind}", "path": "1_Pooling"} for kind in ("Pooling",)]
    (folder / "modules.json").write_text(json.dumps(kinds))
    model, chat = load_checkpoint(folder), load_checkpoint(PARITY / "qwen3_qknorm")
    assert (model.kind, chat.kind, model.config.pooling) == ("encoder", "decoder", "last")
    assert "head" in chat.params and "head" not in model.params
    io = np.load(folder / "io.npz")
    ids, lengths = io["input_ids"], np.array([9, 5])
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)
    found = np.asarray(embed(model.params, model.config, ids, mask))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # The language head turns the same states, of any length, into the recorded logits.
    logits = io["logits"][np.arange(2), lengths - 1]
    turned = found @ np.asarray(chat.params["head"]).T
    cosines = (turned * logits).sum(1) / np.linalg.norm(turned, axis=1) / np.linalg.norm(logits, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
