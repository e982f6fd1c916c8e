"""The slot cache gives what the model without a cache gives, in any order of slots and chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.generate.kv_slots import CacheShape, Rows, bucket, lengths_up_to
from engine.generate.model import CHUNKS, SHORT, DecoderStepModel, _chunk
from engine.generate.request import SamplingParams
from engine.generate.step_model import NO_TOKEN, StepModel
from engine.models import decoder
from engine.models.decoder_config import DecoderConfig
from engine.weights import load_checkpoint
from tests.engine.generate.conftest import PARITY, Parity

GREEDY = SamplingParams(temperature=0)


def prefill(model: StepModel, slot: int, prompt: tuple[int, ...], limit: int = 512) -> int:
    model.start(slot, prompt, GREEDY, 0)
    start, token = 0, None
    while token is None:
        count, token = model.prefill(slot, start, limit)
        start += count
    assert start == len(prompt)
    return token


def forward_greedy(parity: Parity, prompt: tuple[int, ...], count: int) -> list[int]:
    """Greedy tokens without a cache: the whole sequence again for each."""
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig)
    forward = jax.jit(lambda tokens: decoder.forward(parity.checkpoint.params, config, tokens))
    tokens = np.zeros((1, 128), np.int32)
    tokens[0, : len(prompt)] = prompt
    for end in range(len(prompt), len(prompt) + count):
        tokens[0, end] = np.argmax(forward(tokens)[0, end - 1])
    return [int(token) for token in tokens[0, len(prompt) : len(prompt) + count]]


def test_greedy_tokens_equal_the_reference(step_model: DecoderStepModel, parity: Parity):
    tokens = [prefill(step_model, 0, parity.prompt)]
    while len(tokens) < len(parity.greedy):
        tokens += step_model.decode([0])
    step_model.release(0)
    assert tuple(tokens) == parity.greedy


def test_a_prompt_in_chunks_gives_what_it_gives_whole(step_model: DecoderStepModel, parity: Parity):
    prompt = (parity.prompt * 20)[:100]
    replies = []
    for chunk in (256, 64):
        tokens = [prefill(step_model, 1, prompt, chunk)]
        tokens += [step_model.decode([1])[0] for _ in range(6)]
        step_model.release(1)
        replies.append(tokens)
    assert replies[0] == replies[1] == forward_greedy(parity, prompt, 7)


@pytest.mark.parametrize("family", ["gemma2_softcap", "gemma3_sliding", "phi3_longrope"])
def test_layers_with_windows_and_ropes_of_their_own_decode_as_without_a_cache(family: str):
    other = Parity(load_checkpoint(PARITY.parent / family), (), ())
    model = other.model(max_slots=2)
    long, short = tuple(range(3, 93)), (5, 9, 30)
    tokens = {0: [prefill(model, 0, long, 64)], 1: [prefill(model, 1, short)]}
    for _ in range(6):
        for slot, token in zip((0, 1), model.decode([0, 1]), strict=True):
            tokens[slot].append(token)
    assert tokens == {0: forward_greedy(other, long, 7), 1: forward_greedy(other, short, 7)}


def test_slots_that_come_and_go_do_not_disturb_each_other(step_model: DecoderStepModel, parity: Parity):
    """Rows are moved, added and taken away under running sequences."""
    want = parity.greedy
    got: dict[int, list[int]] = {}
    leaves_at = {0: 4, 1: 12, 2: 7, 3: 15}
    for step in range(20):
        if step in (0, 1, 3, 5):
            slot = {0: 0, 1: 1, 3: 2, 5: 3}[step]
            got[slot] = [prefill(step_model, slot, parity.prompt)]
        live = [slot for slot in got if len(got[slot]) < leaves_at[slot]]
        for slot in set(got) - set(live):
            step_model.release(slot)
        if live:
            for slot, token in zip(live, step_model.decode(live), strict=True):
                got[slot].append(token)
    for slot in got:
        step_model.release(slot)
    assert {slot: tuple(tokens) for slot, tokens in got.items()} == {
        slot: want[: leaves_at[slot]] for slot in got
    }


def test_a_new_prompt_in_a_used_slot_sees_nothing_of_the_old(step_model: DecoderStepModel, parity: Parity):
    prefill(step_model, 0, (parity.prompt * 12)[:75])
    step_model.release(0)
    token = prefill(step_model, 0, parity.prompt)
    step_model.release(0)
    assert token == parity.greedy[0]


def test_the_cache_grows_under_running_sequences(parity: Parity):
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig)
    model = parity.model(max_slots=2)
    model._lengths = (16, 48, 128)
    model._rows = Rows(CacheShape(config.num_layers, config.num_kv_heads, config.head_dim), (16, 48, 128))
    tokens = [prefill(model, 0, parity.prompt)]
    while len(tokens) < len(parity.greedy):
        tokens += model.decode([0])
    assert tuple(tokens) == parity.greedy
    assert model._rows.length == 48


def test_rows_shrink_only_when_a_quarter_would_do():
    rows = Rows(CacheShape(1, 1, 2), (16, 32, 64, 128))
    rows.fit(128)
    rows.fit(33)
    assert rows.length == 128
    rows.fit(20)
    assert rows.length == 32


def test_weights_that_are_no_numbers_give_no_token(parity: Parity):
    params = {**parity.checkpoint.params, "norm": jnp.full_like(parity.checkpoint.params["norm"], np.nan)}
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig)
    assert prefill(DecoderStepModel(params, config), 0, parity.prompt) == NO_TOKEN


def test_warming_leaves_no_misses_for_usual_requests(parity: Parity):
    model = parity.model(max_slots=2)
    seen: list[tuple[int, int]] = []
    model.warm(lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    for slot in (0, 1):
        prefill(model, slot, parity.prompt)
        model.decode(list(range(slot + 1)))
    assert model.compile_misses == 0


def test_a_miss_is_counted(parity: Parity):
    model = parity.model()
    prefill(model, 0, parity.prompt)
    assert model.compile_misses == 1
    model.release(0)
    prefill(model, 0, parity.prompt)
    assert model.compile_misses == 1


def test_penalties_and_seeds_reach_the_sampler(step_model: DecoderStepModel, parity: Parity):
    def run(**options: float) -> list[int]:
        step_model.start(0, parity.prompt, SamplingParams(**options), 11)
        _, first = step_model.prefill(0, 0, 512)
        assert first is not None
        tokens = [first, *(step_model.decode([0])[0] for _ in range(12))]
        step_model.release(0)
        return tokens

    assert run(temperature=0) == list(parity.greedy[:13])
    repeated = run(temperature=0, frequency_penalty=2.0, presence_penalty=2.0)
    assert len(set(repeated)) > len(set(parity.greedy[:13]))
    assert run(temperature=1.5) == run(temperature=1.5)
    assert run(temperature=1.5) != run(temperature=0)
    assert run(temperature=2.0, top_k=1) == list(parity.greedy[:13])


@pytest.mark.parametrize(
    ("total", "start", "limit", "length", "size"),
    [
        (9, 0, 256, 256, 16),
        (17, 0, 256, 256, 64),
        (100, 0, 256, 256, 64),
        (200, 0, 256, 256, 256),
        (300, 0, 64, 512, 64),
        (300, 0, 256, 512, 256),
        (300, 256, 256, 512, 64),
        (180, 0, 256, 192, 64),
    ],
)
def test_chunk_sizes(total: int, start: int, limit: int, length: int, size: int):
    assert _chunk(total, start, limit, length) == size


@pytest.mark.parametrize("context", [1, 16, 100, 128, 300, 8192, 131072])
def test_every_chunk_of_every_prompt_fits_its_cache(context: int):
    lengths = lengths_up_to(context)
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] >= context
    for total in {n for n in (1, 15, 16, 17, context // 2, context - 1, context) if 0 < n <= context}:
        length, start = bucket(total, lengths), 0
        while start < total:
            size = _chunk(total, start, 64 if start % 3 else 256, length)
            assert size in (SHORT, *CHUNKS)
            assert start + size <= length
            start += min(size, total - start)
