"""`Engine` as a notebook uses it: tiny reference checkpoints, and the two real default models."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import Engine
from engine.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, UnsupportedInput

PARITY = Path(__file__).parent.parent / "fixtures" / "parity"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def chat(smollm2_path: Path) -> Iterator[Engine]:
    engine = Engine.load("smollm2-135m-instruct", max_slots=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def minilm(minilm_path: Path) -> Engine:
    return Engine.load("all-minilm-l6-v2")


def test_a_folder_without_tokenizer_gives_the_pure_model_for_token_ids() -> None:
    engine = Engine.load(PARITY / "llama_gqa_tied", quant="f32")
    io = np.load(PARITY / "llama_gqa_tied" / "io.npz")
    for inputs in (io["input_ids"], {"input_ids": io["input_ids"]}):
        logits = jax.jit(engine.model)(engine.params, inputs)
        np.testing.assert_allclose(logits, io["logits"], atol=2e-4)
    with pytest.raises(UnsupportedInput, match="no tokenizer"):
        engine.chat(FRANCE)


@pytest.mark.parametrize(
    "family", ["gemma2_softcap", "gemma3_sliding", "mistral_window", "phi3_longrope", "qwen3_qknorm"]
)
def test_token_ids_generate_the_references_greedy_tokens(family: str) -> None:
    engine = Engine.load(PARITY / family, quant="f32")
    io = np.load(PARITY / family / "io.npz")
    prompt, reference = io["greedy_prompt"][0].tolist(), io["greedy"][0].tolist()
    done = engine.generate(prompt, temperature=0, max_tokens=len(reference) - len(prompt), ignore_eos=True)
    assert [*prompt, *done.token_ids] == reference
    engine.close()


def test_the_model_is_differentiable_in_its_parameters() -> None:
    engine = Engine.load(PARITY / "qwen2_bias", quant="f32")
    tokens = jnp.arange(6)[None]

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean(engine.model(params, tokens) ** 2)

    slope = jax.grad(loss)(engine.params)["norm"]
    step = 1e-3
    bumped = {**engine.params, "norm": engine.params["norm"] + step * jnp.sign(slope)}
    expected = step * float(jnp.abs(slope).sum())
    assert float(loss(bumped) - loss(engine.params)) == pytest.approx(expected, rel=0.05)


def test_an_encoder_takes_a_mask_or_none() -> None:
    engine = Engine.load(PARITY / "bert_minilm", quant="f32")
    io = np.load(PARITY / "bert_minilm" / "io.npz")
    inputs = {"input_ids": io["input_ids"], "attention_mask": io["attention_mask"]}
    states = engine.model(engine.params, inputs)
    visible = io["attention_mask"][..., None]
    np.testing.assert_allclose(states * visible, io["last_hidden_state"] * visible, atol=2e-4)
    ones = {"input_ids": io["input_ids"], "attention_mask": np.ones_like(io["input_ids"])}
    np.testing.assert_array_equal(
        engine.model(engine.params, io["input_ids"]), engine.model(engine.params, ones)
    )


@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_quantised_weights_stay_small_and_near(quant: str) -> None:
    exact = Engine.load(PARITY / "llama_gqa_tied", quant="f32")
    engine = Engine.load(PARITY / "llama_gqa_tied", quant=quant)
    io = np.load(PARITY / "llama_gqa_tied" / "io.npz")
    size, whole = (sum(leaf.nbytes for leaf in jax.tree.leaves(e.params)) for e in (engine, exact))
    assert size < 0.45 * whole
    logits = np.asarray(engine.model(engine.params, io["input_ids"]))
    error = np.linalg.norm(logits - io["logits"]) / np.linalg.norm(io["logits"])
    assert error < {"int8": 0.04, "int4": 0.4}[quant]


def test_chat_streams_what_it_would_say_at_once(chat: Engine) -> None:
    whole = chat.chat(FRANCE, temperature=0, max_tokens=32)
    pieces = list(chat.chat(FRANCE, stream=True, temperature=0, max_tokens=32))
    assert "Paris" in whole.text
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == [whole.finish_reason]
    assert whole.usage.prompt_tokens == len(chat.chat_prompt(FRANCE))
    assert chat.complete(FRANCE, max_tokens=32) == whole.text


def test_a_seed_gives_one_text_and_another_seed_another(chat: Engine) -> None:
    def story(seed: int) -> str:
        prompt = [{"role": "user", "content": "Tell me a story."}]
        return chat.chat(prompt, seed=seed, temperature=1.2, max_tokens=24).text

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_a_stop_string_ends_the_text_and_is_not_in_it(chat: Engine) -> None:
    done = chat.chat(FRANCE, temperature=0, max_tokens=32, stop="Paris")
    assert done.finish_reason == "stop"
    assert "capital" in done.text
    assert "Paris" not in done.text


def test_a_prompt_that_does_not_fit_is_refused_before_work_starts(chat: Engine) -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(ContextLengthExceeded, match="2048"):
        chat.chat(long, max_tokens=8)
    with pytest.raises(ContextLengthExceeded):
        chat.chat(FRANCE, max_tokens=5000)


def test_an_unknown_sampling_parameter_is_named_with_the_known_ones(chat: Engine) -> None:
    with pytest.raises(InvalidRequest, match="'temprature'; there are: max_tokens, temperature"):
        chat.chat(FRANCE, temprature=0)


def test_each_kind_of_model_refuses_the_others_work(chat: Engine, minilm: Engine) -> None:
    with pytest.raises(UnsupportedInput, match="cannot embed"):
        chat.embed(["a"])
    with pytest.raises(UnsupportedInput, match="cannot chat"):
        minilm.chat(FRANCE)


def test_embeddings_are_unit_vectors_in_order(minilm: Engine) -> None:
    texts = ["That is a happy person", "That is a happy dog", "Today is a sunny day"]
    vectors = minilm.embed(texts)
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[0] @ vectors[1:].T, [0.6946, 0.2569], atol=1e-3)


def test_a_model_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ModelNotFound, match="all-minilm-l6-v2"):
        Engine.load("no-such-model")
