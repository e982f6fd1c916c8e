"""A tiny real decoder with the greedy tokens that an independent implementation gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.generate.model import DecoderStepModel
from engine.generate.request import SamplingParams
from engine.models.decoder_config import DecoderConfig
from engine.weights.checkpoint import Checkpoint, load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity" / "llama_gqa_tied"


@dataclass(frozen=True)
class Parity:
    checkpoint: Checkpoint
    prompt: tuple[int, ...]
    greedy: tuple[int, ...]
    """What follows the prompt."""

    def model(self, *, max_slots: int = 4, max_context: int | None = None) -> DecoderStepModel:
        config = self.checkpoint.config
        assert isinstance(config, DecoderConfig)
        return DecoderStepModel(self.checkpoint.params, config, max_slots=max_slots, max_context=max_context)


@pytest.fixture(scope="session")
def parity() -> Parity:
    data = np.load(PARITY / "io.npz")
    prompt = tuple(map(int, data["greedy_prompt"][0]))
    greedy = tuple(map(int, data["greedy"][0]))
    return Parity(load_checkpoint(PARITY), prompt, greedy[len(prompt) :])


@pytest.fixture(scope="session")
def step_model(parity: Parity) -> DecoderStepModel:
    """One model for many tests: its compiled programs are the slow part. Tests leave it empty."""
    return parity.model(max_slots=4)


def greedy(max_tokens: int, **options: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, **options)
