"""With native kernels a request gives the same bits alone, in any batch, and after anything else."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.generate.kv_pool import BLOCK
from engine.generate.model import DecoderStepModel
from engine.generate.request import SamplingParams
from engine.generate.step_model import Opening
from engine.models.decoder_config import DecoderConfig
from engine.weights.checkpoint import load_checkpoint

GREEDY = SamplingParams(temperature=0)
EACH, STEPS = 8, 4
PROMPTS = [
    tuple(np.random.default_rng(slot).integers(100, 40_000, 5 + 7 * slot).tolist()) for slot in range(16)
]


class Recording(DecoderStepModel):
    """Keeps the logits of the last program."""

    logits: NDArray[np.float32]

    def _run(self, key, *args):
        best, logits = super()._run(key, *args)
        self.logits = np.asarray(logits)
        return best, logits


@pytest.fixture(scope="module", params=["int8", pytest.param("int4", marks=pytest.mark.soak)])
def model(request: pytest.FixtureRequest, smollm2_path: Path) -> Recording:
    checkpoint = load_checkpoint(smollm2_path, quant=request.param)
    assert isinstance(checkpoint.config, DecoderConfig)
    return Recording(checkpoint.params, checkpoint.config, max_slots=16, max_context=EACH * BLOCK)


def table(slot: int) -> list[int]:
    return list(range(1 + slot * EACH, 1 + (slot + 1) * EACH))


def prefill(model: Recording, slot: int, generated: tuple[int, ...] = ()) -> NDArray[np.float32]:
    start, prompt = 0, PROMPTS[slot]
    model.start(slot, Opening(prompt, GREEDY, 0, generated=generated))
    while start < len(prompt):
        start += model.prefill(slot, table(slot), start).positions
    return model.logits[0]


def decode(model: Recording, slots: list[int]) -> list[NDArray[np.float32]]:
    model.decode([(slot, table(slot)) for slot in slots])
    return [model.logits[row] for row in range(len(slots))]


def run(model: Recording, slots: list[int]) -> dict[int, list[NDArray[np.float32]]]:
    logits = {slot: [prefill(model, slot)] for slot in slots}
    for _ in range(STEPS):
        for slot, row in zip(slots, decode(model, slots), strict=True):
            logits[slot].append(row)
    for slot in slots:
        model.release(slot)
    return logits


def test_a_request_has_the_same_bits_alone_and_in_every_batch(model: Recording):
    together = run(model, list(range(16)))
    for slots in ([9], [15], [15, 0, 9], list(range(8, 16))):
        for slot, logits in run(model, slots).items():
            np.testing.assert_array_equal(logits, together[slot])


def test_a_replayed_sequence_has_the_same_bits(model: Recording):
    whole = run(model, [9])[9]
    tokens = tuple(int(row.argmax()) for row in whole)
    prefill(model, 9, generated=tokens[:3])
    model.decode([(9, table(9))])
    # The three known tokens in one step, then one at a time.
    replayed = [*model.logits[:3], *(decode(model, [9])[0] for _ in range(STEPS - 3))]
    model.release(9)
    np.testing.assert_array_equal(replayed, whole[1:])


def test_a_prompt_taken_up_from_anothers_blocks_has_the_same_bits(model: Recording):
    whole = prefill(model, 15)
    model.release(15)
    start = model.boundary(len(PROMPTS[15]) - 1)
    shared = [*table(15)[: start // BLOCK], *table(3)]
    model.start(3, Opening(PROMPTS[15], GREEDY, 0))
    model.prefill(3, shared, start)
    model.release(3)
    assert start == 64
    np.testing.assert_array_equal(model.logits[0], whole)
