"""Against recorded outputs of transformers in float32, on small random checkpoints."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.models import decoder
from engine.ops.attention import attention, causal_mask
from engine.ops.jit import compile
from engine.weights import Checkpoint, load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
FAMILIES = (
    "gemma2_softcap",
    "gemma3_sliding",
    "gemma_mqa",
    "llama3_mqa_bias",
    "llama_gqa_tied",
    "mistral_window",
    "phi3_longrope",
    "qwen2_bias",
    "qwen2_yarn_window",
    "qwen3_qknorm",
)
STRETCHED = ("llama_dynamic", "phi3_longrope")
"""Families whose RoPE differs with the length of the sequence."""


@pytest.fixture(scope="module")
def forward():
    return compile(decoder.forward, static_argnums=1)


@pytest.fixture(params=FAMILIES)
def name(request) -> str:
    return request.param


def recorded(name: str):
    return np.load(PARITY / name / "io.npz")


def greedy(model: Checkpoint, prompt: np.ndarray, count: int) -> list[int]:
    """Greedy decoding through `run` with the simplest cache: arrays of the whole length."""
    length = prompt.shape[1] + count
    config = model.config.at_length(length)
    shape = (1, length, config.num_kv_heads, config.head_dim)
    cache = [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(config.num_layers)]

    def step(params, tokens, start, cache):
        positions = start + jnp.arange(tokens.shape[1])[None]

        def attend(layer, q, k, v, state):
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
                for old, new in zip(state[layer], (k, v), strict=True)
            )
            state = [*state[:layer], (keys, values), *state[layer + 1 :]]
            mask = causal_mask(positions, length, config.window(layer))
            return attention(q, keys, values, mask, softcap=config.attn_softcap), state

        hidden, cache = decoder.run(params, config, tokens, positions, attend, cache)
        return decoder.logits(params, config, hidden[:, -1]).argmax(-1), cache

    program = compile(step)
    token, cache = program(model.params, prompt, 0, cache)
    found = [int(token[0])]
    while len(found) < count:
        token, cache = program(model.params, token[:, None], prompt.shape[1] + len(found) - 1, cache)
        found.append(int(token[0]))
    return found


def test_logits_equal_the_reference(name, forward):
    model = load_checkpoint(PARITY / name)
    got = forward(model.params, model.config, jnp.asarray(recorded(name)["input_ids"]))
    np.testing.assert_allclose(got, recorded(name)["logits"], atol=2e-4)


@pytest.mark.parametrize("name", STRETCHED)
def test_logits_equal_the_reference_on_either_side_of_the_first_context(name, forward):
    model, io = load_checkpoint(PARITY / name), recorded(name)
    short = io["input_ids"][:, : io["short_logits"].shape[1]]
    assert short.shape[1] <= model.config.rope.original_context < io["input_ids"].shape[1]
    for ids, logits in ((short, io["short_logits"]), (io["input_ids"], io["logits"])):
        np.testing.assert_allclose(forward(model.params, model.config, ids), logits, atol=2e-4)


def test_greedy_tokens_through_a_cache_equal_the_reference(name):
    prompt, whole = recorded(name)["greedy_prompt"], recorded(name)["greedy"]
    new = whole[0, prompt.shape[1] :].tolist()
    assert greedy(load_checkpoint(PARITY / name), prompt, len(new)) == new


def test_int8_weights_barely_move_the_distribution(name, forward):
    model = load_checkpoint(PARITY / name, quant="int8")
    got = forward(model.params, model.config, jnp.asarray(recorded(name)["input_ids"]))
    ours, reference = jax.nn.log_softmax(got), jax.nn.log_softmax(jnp.asarray(recorded(name)["logits"]))
    divergence = jnp.sum(jnp.exp(reference) * (reference - ours), axis=-1)
    # This fixture's norms after each branch carry rounding on undiminished, and its logits are twice as wide.
    assert float(divergence.mean()) < (0.01 if name == "gemma3_sliding" else 0.002)


def test_later_tokens_do_not_change_earlier_logits(name, forward):
    model = load_checkpoint(PARITY / name)
    tokens = jnp.asarray(recorded(name)["input_ids"])
    changed = tokens.at[:, 12:].set(7)
    before, after = (forward(model.params, model.config, t) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :12], after[:, :12])
    assert np.abs(before[:, 12:] - after[:, 12:]).max() > 1e-2


def test_forward_is_a_pure_function_under_jit_grad_and_vmap():
    model = load_checkpoint(PARITY / "llama_gqa_tied")
    forward = jax.jit(decoder.forward, static_argnums=1)
    tokens = jnp.asarray(recorded("llama_gqa_tied")["input_ids"])

    def loss(params):
        logits = forward(params, model.config, tokens)
        return -jax.nn.log_softmax(logits[:, :-1])[:, :, 5].mean()

    grads = jax.jit(jax.grad(loss))(model.params)
    weight = model.params["layers"][1]["up"]["weight"]
    direction = jnp.zeros_like(weight).at[3, 4].set(1e-2)
    moved = jax.tree.map(lambda leaf: leaf, model.params)
    losses = []
    for sign in (1, -1):
        moved["layers"][1]["up"]["weight"] = weight + sign * direction
        losses.append(float(loss(moved)))
    numeric = (losses[0] - losses[1]) / 2e-2
    assert float(grads["layers"][1]["up"]["weight"][3, 4]) == pytest.approx(numeric, abs=2e-4)

    each = jax.vmap(lambda row: forward(model.params, model.config, row[None])[0])(tokens)
    np.testing.assert_allclose(each, recorded("llama_gqa_tied")["logits"], atol=2e-4)
