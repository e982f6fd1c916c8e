"""Draws follow each row's own parameters, key and step, as an independent NumPy version has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import InvalidRequest
from engine.generate import sampler
from engine.generate.drawing import DrawState
from engine.generate.logprobs import by_row, token_logprobs
from engine.generate.request import SamplingParams
from engine.generate.step_model import Opening

VOCAB = 24
sample = jax.jit(sampler.sample)
keep = jax.jit(sampler._filter)
shaped = jax.jit(sampler.shaped)
sample_shaped = jax.jit(sampler.sample_shaped)


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
    shaping = sampler.Shaping.none(1, 4)
    shaping.in_prompt[0, :2] = True
    shaping.counts[0, 2] = 3
    logits = jnp.asarray([[2.0, -1.0, 2.0, 3.0]])
    np.testing.assert_allclose(shaped(logits, rows([params]), shaping)[0], wanted)


def test_bias_is_added_and_what_is_not_allowed_is_never_drawn():
    shaping = sampler.Shaping.none(2, 40)
    shaping.bias[0, 3] = 7.0
    shaping.allowed[1] = [1 << 5, 1 << (37 - 32)]
    logits = jnp.zeros((2, 40))
    found = np.asarray(shaped(logits, rows([SamplingParams()] * 2), shaping))
    assert found[0].tolist() == [7.0 if token == 3 else 0.0 for token in range(40)]
    assert np.flatnonzero(np.isfinite(found[1])).tolist() == [5, 37]
    for step in range(20):
        drawn = sample_shaped(logits, rows([SamplingParams(temperature=2.0)] * 2, steps=[step] * 2), shaping)
        assert int(drawn[1]) in (5, 37)


def reference_draw(
    logits: NDArray[np.float32], params: SamplingParams, uniform: float, counts: NDArray[np.int64]
) -> tuple[int, float]:
    """One draw in float64 NumPy, by sorting; with the distance of the uniform number to the nearest
    boundary between two tokens, below which rounding may decide otherwise."""
    x = logits.astype(np.float64)
    seen = counts > 0
    x = np.where(seen, np.where(x > 0, x / params.repetition_penalty, x * params.repetition_penalty), x)
    x -= params.presence_penalty * seen + params.frequency_penalty * counts
    for token, bias in params.logit_bias:
        x[token] += bias
    kept = sorted(allowed(x, params))
    weights = np.zeros_like(x)
    weights[kept] = np.exp((x[kept] - x.max()) / params.temperature)
    running = np.cumsum(weights) / weights.sum()
    return int(np.argmax(running > uniform)), float(np.abs(running - uniform).min())


@settings(max_examples=60, deadline=None)
@given(
    params=st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.5, 1.0, 2.0]),
        top_k=st.sampled_from([0, 3, 12]),
        top_p=st.sampled_from([0.5, 0.9, 1.0]),
        min_p=st.sampled_from([0.0, 0.05]),
        repetition_penalty=st.sampled_from([1.0, 1.5]),
        presence_penalty=st.sampled_from([0.0, 0.7]),
        frequency_penalty=st.sampled_from([0.0, -0.4]),
        logit_bias=st.lists(
            st.tuples(st.integers(0, VOCAB - 1), st.floats(-5, 5)), max_size=3, unique_by=lambda b: b[0]
        ).map(tuple),
    ),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 1000),
    noise=st.integers(0, 2**31),
)
def test_every_control_together_draws_what_numpy_draws(
    params: SamplingParams, seed: int, step: int, noise: int
):
    random = np.random.default_rng(noise)
    logits = random.normal(scale=2.0, size=VOCAB).astype(np.float32)
    counts = random.integers(0, 3, VOCAB) * (random.random(VOCAB) < 0.3)
    shaping = sampler.Shaping.none(1, VOCAB)
    shaping.counts[0] = counts
    for token, bias in params.logit_bias:
        shaping.bias[0, token] = bias
    key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(sampler.key_of(seed))), step)
    wanted, margin = reference_draw(logits, params, float(jax.random.uniform(key)), counts)
    drawn = sample_shaped(jnp.asarray(logits[None]), rows([params], seeds=[seed], steps=[step]), shaping)
    assert int(drawn[0]) == wanted or margin < 1e-5


@settings(max_examples=40, deadline=None)
@given(typical_p=st.sampled_from([0.1, 0.4, 0.8, 0.95]), noise=st.integers(0, 2**31))
def test_the_typical_set_is_what_sorting_by_surprise_keeps(typical_p: float, noise: int):
    logits = np.random.default_rng(noise).normal(scale=2.0, size=VOCAB).astype(np.float32)
    likely = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    far = np.abs(-np.log(likely) - (likely * -np.log(likely)).sum())
    order = np.argsort(far)
    below = np.cumsum(likely[order]) - likely[order]
    kept = keep(np.exp(logits - logits.max())[None], rows([SamplingParams(typical_p=typical_p)]))
    assert set(np.flatnonzero(kept[0]).tolist()) == set(order[below < typical_p].tolist())


@pytest.mark.parametrize(
    ("params", "generated", "greedy"),
    [
        (SamplingParams(temperature=0), 0, True),
        (SamplingParams(temperature=0, presence_penalty=1.0), 0, False),
        (SamplingParams(temperature=0, repetition_penalty=1.2), 0, False),
        (SamplingParams(temperature=0, logit_bias=((1, 2.0),)), 0, False),
        (SamplingParams(temperature=0, min_tokens=3), 2, False),
        (SamplingParams(temperature=0, min_tokens=3), 3, True),
        (SamplingParams(temperature=0.1), 0, False),
    ],
)
def test_what_counts_as_greedy(params: SamplingParams, generated: int, greedy: bool):
    state = DrawState.of(Opening((1,), params, 0), VOCAB)
    for _ in range(generated):
        state.advance(1)
    assert state.greedy is greedy


def test_logprobs_are_the_log_softmax_and_its_largest():
    logits = np.stack([LOGITS, LOGITS[::-1]])
    found = jax.jit(token_logprobs)(jnp.asarray(logits), jnp.asarray([2, 5]))
    reports = by_row({0: 0, 1: 4}, np.array([2, 5], np.int32), found)
    wide = logits.astype(np.float64)
    wanted = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    assert reports[0].top == ()
    assert reports[0].logprob == pytest.approx(wanted[0, 2], abs=1e-5)
    best = np.argsort(-wanted[1])[:4]
    assert [token for token, _ in reports[1].top] == best.tolist()
    np.testing.assert_allclose([value for _, value in reports[1].top], wanted[1, best], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"typical_p": 0.0}, "typical_p"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logit_bias": ((1, 101.0),)}, "logit_bias"),
        ({"logit_bias": ((1, float("nan")),)}, "logit_bias"),
        ({"stop_token_ids": tuple(range(65))}, "stop_token_ids"),
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, object], param: str):
    with pytest.raises(InvalidRequest, match=param) as raised:
        SamplingParams(**options)
    assert raised.value.param == param
