"""Draws follow each row's own parameters, key and step, as an independent NumPy version has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.generate import sampler
from engine.generate.request import SamplingParams

VOCAB = 24
sample = jax.jit(sampler.sample)
keep = jax.jit(sampler._filter)
penalise = jax.jit(sampler.penalise)


def rows(params: list[SamplingParams], *, seeds: list[int] | None = None, steps: list[int] | None = None):
    seeds = seeds or [0] * len(params)
    steps = steps or [0] * len(params)
    return sampler.RowSampling.of(
        [(p, sampler.key_of(s), n) for p, s, n in zip(params, seeds, steps, strict=True)]
    )


def allowed(logits: NDArray[np.float32], params: SamplingParams) -> set[int]:
    """Tokens that may be drawn, by sorting."""
    scaled = logits.astype(np.float64) / params.temperature
    order = np.argsort(-scaled, kind="stable")
    if params.top_k:
        order = order[: params.top_k]
    weights = np.exp(scaled[order] - scaled.max())
    below = np.cumsum(weights) - weights
    order = order[below < params.top_p * weights.sum()] if params.top_p < 1 else order
    return {int(i) for i in order if np.exp(scaled[i] - scaled.max()) >= params.min_p}


LOGITS = np.random.default_rng(0).permutation(np.linspace(-4, 4, VOCAB)).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 10, 100]),
    top_p=st.sampled_from([0.05, 0.35, 0.8, 0.97, 1.0]),
    min_p=st.sampled_from([0.0, 0.03, 0.4]),
)
def test_what_may_be_drawn_is_what_sorting_keeps(temperature: float, top_k: int, top_p: float, min_p: float):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    scaled = LOGITS / np.float32(temperature)
    weights = np.exp(scaled - scaled.max())[None]
    kept = np.flatnonzero(np.asarray(keep(weights, rows([params])))[0])
    assert set(kept.tolist()) == allowed(LOGITS, params)


def test_frequencies_are_the_softmax_probabilities():
    count = 4_000
    logits = jnp.asarray(np.tile(LOGITS[:8], (count, 1)))
    params = [SamplingParams(temperature=1.5)] * count
    drawn = np.asarray(sample(logits, rows(params, seeds=list(range(count)))))
    wanted = np.exp(LOGITS[:8] / 1.5) / np.exp(LOGITS[:8] / 1.5).sum()
    seen = np.bincount(drawn, minlength=8) / count
    np.testing.assert_allclose(seen, wanted, atol=4 * np.sqrt(0.25 / count))


def test_temperature_zero_is_the_argmax_beside_sampled_rows():
    logits = jnp.asarray(np.stack([LOGITS, LOGITS[::-1]]))
    drawn = sample(logits, rows([SamplingParams(temperature=0), SamplingParams(temperature=2.0)]))
    assert int(drawn[0]) == int(np.argmax(LOGITS))


def test_a_draw_does_not_depend_on_its_neighbours():
    params = SamplingParams(temperature=1.0, top_p=0.9)
    others = [SamplingParams(temperature=0), SamplingParams(temperature=2.0, top_k=3), params]
    noise = np.random.default_rng(1).normal(size=(4, VOCAB)).astype(np.float32)
    for step in range(5):
        alone = sample(jnp.asarray(noise[:1]), rows([params], seeds=[7], steps=[step]))
        together = sample(
            jnp.asarray(noise), rows([params, *others], seeds=[7, 1, 2, 3], steps=[step, 9, 9, 9])
        )
        assert int(alone[0]) == int(together[0])


def test_seed_and_step_change_the_draw():
    logits = jnp.zeros((1, 1000))
    params = [SamplingParams(temperature=1.0)]
    cases = [(0, 0), (0, 1), (1, 0), (1 << 40, 0), (-1, 0)]
    drawn = {int(sample(logits, rows(params, seeds=[seed], steps=[step]))[0]) for seed, step in cases}
    assert len(drawn) == len(cases)


def test_tokens_without_weight_are_never_drawn():
    logits = jnp.asarray(np.tile(np.where(np.arange(VOCAB) % 2, 0.0, -1e9).astype(np.float32), (500, 1)))
    drawn = np.asarray(sample(logits, rows([SamplingParams(temperature=2.0)] * 500, seeds=list(range(500)))))
    assert set(np.unique(drawn % 2)) == {1}


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        (SamplingParams(repetition_penalty=2.0), [1.0, -2.0, 1.0, 3.0]),
        (SamplingParams(presence_penalty=0.5), [2.0, -1.0, 1.5, 3.0]),
        (SamplingParams(frequency_penalty=0.5), [2.0, -1.0, 0.5, 3.0]),
        (SamplingParams(repetition_penalty=2.0, frequency_penalty=0.5), [1.0, -2.0, -0.5, 3.0]),
    ],
)
def test_penalties(params: SamplingParams, wanted: list[float]):
    """Tokens 0 and 1 are in the prompt; token 2 has been generated three times."""
    in_prompt = jnp.asarray([[True, True, False, False]])
    counts = jnp.asarray([[0, 0, 3, 0]])
    logits = jnp.asarray([[2.0, -1.0, 2.0, 3.0]])
    np.testing.assert_allclose(penalise(logits, rows([params]), in_prompt, counts)[0], wanted)


@pytest.mark.parametrize(
    ("params", "greedy"),
    [
        (SamplingParams(temperature=0), True),
        (SamplingParams(temperature=0, presence_penalty=1.0), False),
        (SamplingParams(temperature=0, repetition_penalty=1.2), False),
        (SamplingParams(temperature=0.1), False),
    ],
)
def test_what_counts_as_greedy(params: SamplingParams, greedy: bool):
    assert sampler.is_greedy(params) is greedy
