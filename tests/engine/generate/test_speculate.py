"""Guesses never change a reply, and pay where a text repeats itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generate.loop import Generator
from engine.generate.model import DecoderStepModel, holds_bits
from engine.generate.request import GenerationRequest, SamplingParams
from engine.generate.speculate import NgramDrafter
from engine.models.decoder_config import DecoderConfig
from engine.weights.checkpoint import Checkpoint, load_checkpoint
from tests.engine.generate.conftest import Parity


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(0, 3), max_size=40), most=st.integers(1, 5))
def test_a_guess_is_what_followed_the_last_three_tokens_before(tokens: list[int], most: int):
    found = NgramDrafter(tokens).draft(most)
    gram = tokens[-3:]
    places = [at for at in range(len(tokens) - 3) if len(gram) == 3 and tokens[at : at + 3] == gram]
    assert found == (tokens[places[-1] + 3 :][:most] if places else [])


def test_guesses_that_keep_failing_rest_and_come_back():
    drafter = NgramDrafter([1, 2, 3] * 3)
    assert drafter.draft(2) == [1, 2]
    while drafter.draft(2):
        drafter.judge(0)
    rested = 1
    while not drafter.draft(2):
        rested += 1
    assert 5 < rested < 30


@pytest.fixture(scope="module")
def checkpoint(smollm2_path: Path) -> Checkpoint:
    return load_checkpoint(smollm2_path, quant="int8")


def generator(checkpoint: Checkpoint, speculate: int) -> Generator:
    assert isinstance(checkpoint.config, DecoderConfig)
    model = DecoderStepModel(
        checkpoint.params, checkpoint.config, max_slots=2, max_context=256, speculate=speculate
    )
    return Generator(model, checkpoint.tokenizer, max_slots=2, eos_ids=checkpoint.eos_ids)


@pytest.fixture(scope="module")
def generators(checkpoint: Checkpoint) -> Iterator[tuple[Generator, Generator]]:
    with generator(checkpoint, 0) as plain, generator(checkpoint, 3) as guessing:
        yield plain, guessing


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_replies_are_the_same_with_and_without(generators, checkpoint: Checkpoint, temperature: float):
    assert checkpoint.tokenizer is not None
    text = "one two three four five six seven, one two three four five six seven, one two three"
    sampling = SamplingParams(max_tokens=32, temperature=temperature, seed=4, ignore_eos=True)
    request = GenerationRequest(tuple(checkpoint.tokenizer.encode(text)), sampling)
    plain, guessing = (one.generate(request) for one in generators)
    assert plain.token_ids == guessing.token_ids
    assert plain.text == guessing.text
    stats = generators[1].stats()
    assert 0 < stats.accepted_tokens <= stats.drafted_tokens
    assert generators[0].stats().drafted_tokens == 0


def test_models_whose_bits_depend_on_the_batch_do_not_guess(parity: Parity, checkpoint: Checkpoint):
    config = parity.checkpoint.config
    assert isinstance(config, DecoderConfig) and isinstance(checkpoint.config, DecoderConfig)
    assert DecoderStepModel(parity.checkpoint.params, config, speculate=4).lookahead == 0
    assert not holds_bits(parity.checkpoint.params, config)
    assert holds_bits(checkpoint.params, checkpoint.config)
