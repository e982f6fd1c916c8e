"""What the scheduler asks of a model: steps over slots, as a small protocol.

`DecoderStepModel` is the real one; tests drive the scheduler with a scripted one.
"""

from collections.abc import Sequence
from typing import Protocol

from engine.generate.request import SamplingParams
from engine.protocols import Progress

NO_TOKEN = -1
"""Given for a slot whose logits are not finite: that stream ends with an error, the others go on."""


class StepModel(Protocol):
    @property
    def max_context(self) -> int:
        """Most tokens of one sequence, prompt and reply together."""

    @property
    def vocab_size(self) -> int:
        """Token ids are in [0, vocab_size)."""

    @property
    def compile_misses(self) -> int:
        """Programs that a request had to wait for because `warm` had not compiled them."""

    def start(self, slot: int, prompt: Sequence[int], sampling: SamplingParams, seed: int) -> None:
        """Claims a free slot for a sequence."""

    def prefill(self, slot: int, start: int, limit: int) -> tuple[int, int | None]:
        """Runs at most `limit` prompt tokens of `slot` from position `start`.

        Returns how many it ran, and the first new token if that was the end of the prompt. One
        slot's prompt must end, or the slot be released, before another's begins.
        """

    def decode(self, slots: Sequence[int]) -> list[int]:
        """One more token for each slot whose prompt is done; all of them must be given."""

    def release(self, slot: int) -> None:
        """Frees a slot, at any point of its life."""

    def reset(self) -> None:
        """Frees everything after an exception, which may have cost the device its state."""

    def warm(self, progress: Progress | None = None) -> None:
        """Compiles what most requests need. May run beside the other methods, on another thread."""
