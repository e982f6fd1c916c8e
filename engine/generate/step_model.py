"""What the scheduler asks of a model: steps over slots and blocks, as a small protocol.

`DecoderStepModel` is the real one; tests drive the scheduler with a scripted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.generate.guide import Guide
from engine.generate.request import SamplingParams, TokenLogprobs
from engine.protocols import Progress

NO_TOKEN = -1
"""Given for a slot that cannot go on: that stream ends with an error, the others go on."""

Table = Sequence[int]
"""The blocks of one sequence, in the order of its positions."""


@dataclass(frozen=True)
class Drawn:
    """One new token, and its log-probabilities if the request asked for them.

    `error` says why there is NO_TOKEN, if that is not because the logits are not finite.
    """

    token: int
    logprobs: TokenLogprobs | None = None
    error: str | None = None


@dataclass(frozen=True)
class Step:
    """What a step did for one sequence: how many more positions have keys, and the new tokens."""

    positions: int
    drawn: tuple[Drawn, ...] = ()


@dataclass(frozen=True)
class Opening:
    """What a model has to know of a sequence before its first step.

    Attributes:
        ends: tokens that end it; none is drawn before `sampling.min_tokens`.
        generated: tokens it had when it was preempted: they are replayed and not given again.
        guide: which tokens may come next; it has seen `generated` already.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParams
    seed: int
    ends: frozenset[int] = frozenset()
    generated: tuple[int, ...] = ()
    guide: Guide | None = None


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

    @property
    def drafted(self) -> int:
        """Tokens guessed ahead so far."""

    @property
    def accepted(self) -> int:
        """Guessed tokens that turned out right."""

    @property
    def block_size(self) -> int:
        """Positions of one block."""

    @property
    def blocks(self) -> int:
        """Blocks that sequences may hold, numbered from 1: enough for one sequence at least."""

    @property
    def lookahead(self) -> int:
        """Positions beyond the next that `decode` can use where a table has room for them."""

    @property
    def lost(self) -> bool:
        """Whether an exception has cost the device its state, so that only `reset` helps."""

    def boundary(self, tokens: int) -> int:
        """The last position, at most `tokens`, at which a prompt may be taken up; a multiple of blocks."""

    def start(self, slot: int, opening: Opening) -> None:
        """Claims a free slot for a sequence."""

    def prefill(self, slot: int, table: Table, start: int) -> Step:
        """Runs the next chunk of a prompt from `start`, a boundary or where the last chunk ended.

        `table` holds the whole prompt. The end of the prompt gives the first token, unless the sequence
        is being replayed.
        """

    def decode(self, batch: Sequence[tuple[int, Table]]) -> list[Step]:
        """Goes on with slots whose prompts are done: one more position for each, or a few.

        Each table has room for one more position at least; more room may be used for more tokens.
        """

    def release(self, slot: int) -> None:
        """Frees a slot, at any point of its life."""

    def reset(self) -> None:
        """Frees everything after an exception."""

    def warm(self, progress: Progress | None = None, context: int | None = None) -> None:
        """Compiles what requests of up to `context` tokens need, or most of them where that is None.

        May run beside the other methods, on another thread.
        """
