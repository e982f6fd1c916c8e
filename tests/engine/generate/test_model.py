"""The slot cache gives what the model without a cache gives, in any order of slots and chunks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.generate.kv_pool import BLOCK, blocks_for, lengths_up_to
from engine.generate.model import DecoderStepModel, _cell
from engine.generate.request import SamplingParams
from engine.generate.step_model import NO_TOKEN, Drawn, Opening
from engine.models import decoder
from engine.models.decoder_config import DecoderConfig
from engine.weights import load_checkpoint
from tests.engine.generate.conftest import PARITY, Parity

GREEDY = SamplingParams(temperature=0)


class Driven:
    """A model with a table for each slot, each of blocks of its own."""

    def __init__(self, model: DecoderStepModel, blocks_each: int = 4) -> None:
        self.model = model
        self.each = blocks_each

    def table(self, slot: int) -> list[int]:
        # Backwards, so that blocks are not in the order of positions.
        return list(range((slot + 1) * self.each, slot * self.each, -1))

    def prefill(self, slot: int, opening: Opening) -> tuple[Drawn, ...]:
        self.model.start(slot, opening)
        start, drawn = 0, ()
        while start < len(opening.prompt):
            step = self.model.prefill(slot, self.table(slot), start)
            start, drawn = start + step.positions, step.drawn
        return drawn

    def decode(self, *slots: int) -> list[tuple[Drawn, ...]]:
        return [step.drawn for step in self.model.decode([(slot, self.table(slot)) for slot in slots])]

    def run(self, slot: int, prompt: tuple[int, ...], count: int, sampling: SamplingParams = GREEDY):
        drawn = list(self.prefill(slot, Opening(prompt, sampling, 11, frozenset())))
        while len(drawn) < count:
            drawn += self.decode(slot)[0]
        self.model.release(slot)
        return [one.token for one in drawn]


@pytest.fixture
def driven(step_model: DecoderStepModel) -> Driven:
    return Driven(step_model)


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


def test_greedy_tokens_equal_the_reference(driven: Driven, parity: Parity):
    assert tuple(driven.run(0, parity.prompt, len(parity.greedy))) == parity.greedy


def test_a_prompt_over_several_programs_gives_what_the_model_gives_whole(driven: Driven, parity: Parity):
    prompt = (parity.prompt * 20)[:100]
    assert driven.run(1, prompt, 7) == forward_greedy(parity, prompt, 7)


@pytest.mark.parametrize("family", ["gemma2_softcap", "gemma3_sliding", "phi3_longrope"])
def test_layers_with_windows_and_ropes_of_their_own_decode_as_without_a_cache(family: str):
    other = Parity(load_checkpoint(PARITY.parent / family), (), ())
    driven = Driven(other.model(max_slots=2))
    prompts = {0: tuple(range(3, 93)), 1: (5, 9, 30)}
    drawn = {slot: [*driven.prefill(slot, Opening(prompt, GREEDY, 0))] for slot, prompt in prompts.items()}
    for _ in range(6):
        for slot, more in zip(prompts, driven.decode(*prompts), strict=True):
            drawn[slot] += more
    for slot, prompt in prompts.items():
        assert [one.token for one in drawn[slot]] == forward_greedy(other, prompt, 7)


def test_slots_that_come_and_go_do_not_disturb_each_other(driven: Driven, parity: Parity):
    got: dict[int, list[int]] = {}
    leaves_at = {0: 4, 1: 12, 2: 7, 3: 15}
    for step in range(20):
        if step in (0, 1, 3, 5):
            slot = {0: 0, 1: 1, 3: 2, 5: 3}[step]
            got[slot] = [one.token for one in driven.prefill(slot, Opening(parity.prompt, GREEDY, 0))]
        live = [slot for slot in got if len(got[slot]) < leaves_at[slot]]
        for slot in set(got) - set(live):
            driven.model.release(slot)
        if live:
            for slot, drawn in zip(live, driven.decode(*live), strict=True):
                got[slot] += [one.token for one in drawn]
    for slot in got:
        driven.model.release(slot)
    assert {slot: tuple(tokens) for slot, tokens in got.items()} == {
        slot: parity.greedy[: leaves_at[slot]] for slot in got
    }


def test_a_new_prompt_in_used_blocks_sees_nothing_of_the_old(driven: Driven, parity: Parity):
    driven.run(0, (parity.prompt * 12)[:75], 1)
    assert driven.run(0, parity.prompt, 1) == [parity.greedy[0]]


def test_a_prompt_taken_up_at_a_boundary_goes_on_from_anothers_blocks(parity: Parity, driven: Driven):
    first, second = (parity.prompt * 20)[:90], (*(parity.prompt * 20)[:70], 3, 1)
    driven.run(0, first, 1)
    model = driven.model
    start = model.boundary(len(second) - 1)
    table = [*driven.table(0)[: start // BLOCK], *driven.table(1)]
    model.start(1, Opening(second, GREEDY, 0))
    drawn = model.prefill(1, table, start).drawn
    model.release(1)
    assert start == 64
    assert [one.token for one in drawn] == driven.run(2, second, 1)


def test_a_preempted_sequence_is_replayed_to_where_it_was(driven: Driven, parity: Parity):
    """Its known tokens are fed and not given again, and what follows is drawn as it would have been."""
    sampling = SamplingParams(temperature=1.0, frequency_penalty=0.5)
    whole = driven.run(0, parity.prompt, 12, sampling)
    opening = Opening(parity.prompt, sampling, 11, frozenset(), tuple(whole[:5]))
    assert driven.prefill(1, opening) == ()
    drawn = [driven.decode(1)[0] for _ in range(8)]
    driven.model.release(1)
    assert [len(one) for one in drawn] == [0] + [1] * 7
    assert [token.token for one in drawn for token in one] == whole[5:]


def test_more_sequences_than_a_program_has_rows_run_as_several(parity: Parity):
    driven = Driven(parity.model(max_slots=18), blocks_each=4)
    slots = range(18)
    for slot in slots:
        driven.prefill(slot, Opening(parity.prompt, GREEDY, 0))
    assert [drawn[0].token for drawn in driven.decode(*slots)] == [parity.greedy[1]] * 18


def test_as_on_a_gpu_rows_are_scattered_and_programs_hold_more_of_them(parity: Parity, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    driven = Driven(parity.model(max_slots=18), blocks_each=4)
    for slot in range(18):
        driven.prefill(slot, Opening(parity.prompt, GREEDY, 0))
    drawn = [driven.decode(*range(18)) for _ in range(3)]
    assert [[one[0].token for one in step] for step in drawn] == [[t] * 18 for t in parity.greedy[1:4]]
    assert any(key[:2] == ("decode", 32) for key in driven.model._programs._made)


def test_bf16_weights_keep_keys_in_bf16_and_give_nearly_the_same(parity: Parity):
    narrow = Parity(load_checkpoint(PARITY, quant="bf16"), parity.prompt, parity.greedy)
    driven = Driven(narrow.model())
    whole, layer = driven.model._shape, narrow.checkpoint.params["layers"][0]
    assert layer["q"]["weight"].dtype == whole.dtype == jnp.bfloat16
    assert whole.block_bytes * 2 == parity.model()._shape.block_bytes
    assert driven.run(0, parity.prompt, 5) == list(parity.greedy[:5])
    prompt = jnp.asarray([parity.prompt])
    exact, found = (
        jax.nn.log_softmax(decoder.forward(one.checkpoint.params, one.checkpoint.config, prompt))
        for one in (parity, narrow)
    )
    assert found.dtype == jnp.float32
    assert 0 < (jnp.exp(exact) * (exact - found)).sum(-1).max() < 1e-3


def test_weights_that_are_no_numbers_give_no_token(parity: Parity):
    params = {**parity.checkpoint.params, "norm": jnp.full_like(parity.checkpoint.params["norm"], np.nan)}
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig)
    assert Driven(DecoderStepModel(params, config)).run(0, parity.prompt, 1) == [NO_TOKEN]


def test_warming_leaves_no_misses_for_usual_requests(parity: Parity):
    driven = Driven(parity.model(max_slots=2), blocks_each=4)
    seen: list[tuple[int, int]] = []
    driven.model.warm(lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    every = SamplingParams(temperature=1.0, logprobs=2, presence_penalty=1.0)
    for slot, sampling in enumerate((GREEDY, every)):
        driven.prefill(slot, Opening(parity.prompt, sampling, 0))
        driven.decode(*range(slot + 1))
    assert driven.model.compile_misses == 0


def test_warming_for_a_context_leaves_no_misses_up_to_it(parity: Parity):
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig)
    model = DecoderStepModel(parity.checkpoint.params, replace(config, max_context=1024), max_slots=1)
    prompt = tuple(range(1, 61)) * 11
    model.warm()
    usual = Driven(model, blocks_each=model.blocks)
    usual.prefill(0, Opening(prompt, GREEDY, 0))
    assert model.compile_misses == 1
    model.release(0)
    model = DecoderStepModel(parity.checkpoint.params, replace(config, max_context=1024), max_slots=1)
    model.warm(context=1024)
    whole = Driven(model, blocks_each=model.blocks)
    whole.prefill(0, Opening(prompt, GREEDY, 0))
    whole.decode(0)
    assert model.compile_misses == 0


def test_a_miss_is_counted(parity: Parity):
    driven = Driven(parity.model())
    driven.run(0, parity.prompt, 1)
    assert driven.model.compile_misses == 1
    driven.run(0, parity.prompt, 1)
    assert driven.model.compile_misses == 1


def test_the_pool_is_bounded_and_always_holds_one_context(parity: Parity):
    small, default = parity.model(max_slots=4), parity.model(max_slots=4)
    assert default.blocks == 4 * blocks_for(default.max_context)
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig)
    small = DecoderStepModel(parity.checkpoint.params, config, max_slots=4, kv_bytes=1)
    assert small.blocks == blocks_for(small.max_context)


def test_penalties_and_seeds_reach_the_sampler(driven: Driven, parity: Parity):
    def run(**options: float) -> list[int]:
        return driven.run(0, parity.prompt, 13, SamplingParams(**options))

    assert run(temperature=0) == list(parity.greedy[:13])
    repeated = run(temperature=0, frequency_penalty=2.0, presence_penalty=2.0)
    assert len(set(repeated)) > len(set(parity.greedy[:13]))
    assert run(temperature=1.5) == run(temperature=1.5)
    assert run(temperature=1.5) != run(temperature=0)
    assert run(temperature=2.0, top_k=1) == list(parity.greedy[:13])


def run_one(driven: Driven, parity: Parity, count: int, **options: object) -> list[Drawn]:
    """The reference's first token counts as the end token here."""
    ends = frozenset(parity.greedy[:1])
    drawn = list(driven.prefill(0, Opening(parity.prompt, SamplingParams(**options), 11, ends)))
    while len(drawn) < count:
        drawn += driven.decode(0)[0]
    driven.model.release(0)
    return drawn


def test_logprobs_come_with_each_token_and_greedy_ones_are_the_best(driven: Driven, parity: Parity):
    for one in run_one(driven, parity, 4, temperature=0, logprobs=3):
        assert one.logprobs is not None and one.logprobs.token_id == one.token
        assert one.logprobs.top[0] == (one.token, one.logprobs.logprob)
        assert len(one.logprobs.top) == 3
    assert run_one(driven, parity, 1, temperature=0)[0].logprobs is None


def test_logit_bias_bans_and_forces(driven: Driven, parity: Parity):
    forced = run_one(driven, parity, 3, temperature=0, logit_bias=((7, 100.0),))
    assert [one.token for one in forced] == [7, 7, 7]
    banned = run_one(driven, parity, 1, temperature=0, logit_bias=((parity.greedy[0], -100.0),))
    assert banned[0].token != parity.greedy[0]


def test_end_tokens_are_not_drawn_before_min_tokens(driven: Driven, parity: Parity):
    early = run_one(driven, parity, 3, temperature=0, min_tokens=3)
    assert parity.greedy[0] not in [one.token for one in early]
    assert run_one(driven, parity, 1, temperature=0)[0].token == parity.greedy[0]


@pytest.mark.parametrize("context", [1, 16, 100, 128, 300, 8192, 131072])
def test_every_program_of_every_prompt_fits_its_table(parity: Parity, context: int):
    lengths = lengths_up_to(context)
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] >= context
    start = 0
    while start < context:
        assert start + _cell(start) <= lengths[-1]
        assert start % BLOCK == 0
        start += _cell(start)


@pytest.mark.parametrize(
    ("tokens", "boundary"), [(0, 0), (63, 0), (64, 64), (127, 64), (128, 128), (300, 256), (384, 384)]
)
def test_prompts_are_cut_at_fixed_positions(step_model: DecoderStepModel, tokens: int, boundary: int):
    assert step_model.boundary(tokens) == boundary
