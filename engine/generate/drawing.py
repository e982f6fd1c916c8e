"""The next tokens of a batch: which sampling programs run, and each sequence's state between them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.generate import sampler
from engine.generate.logprobs import by_row, token_logprobs
from engine.generate.programs import Key, Program, Programs, abstract
from engine.generate.request import SamplingParams
from engine.generate.step_model import NO_TOKEN, Drawn, Opening
from engine.ops.jit import compile

PROGRAMS = ("sample", "sample_shaped", "logprobs")

_IDLE = (SamplingParams(temperature=0), sampler.key_of(0), 0)


@dataclass
class DrawState:
    """What drawing knows of one sequence; `generated` counts its tokens."""

    opening: Opening
    key: NDArray[np.uint32]
    in_prompt: NDArray[np.bool_] | None = None
    counts: NDArray[np.int32] | None = None
    generated: int = 0
    sampling: SamplingParams = field(init=False)

    def __post_init__(self) -> None:
        self.sampling = self.opening.sampling

    @classmethod
    def of(cls, opening: Opening, vocabulary: int) -> "DrawState":
        state = cls(opening, sampler.key_of(opening.seed))
        if sampler.has_penalties(opening.sampling):
            state.in_prompt, state.counts = np.zeros(vocabulary, bool), np.zeros(vocabulary, np.int32)
            state.in_prompt[list(opening.prompt)] = True
        for token in opening.generated:
            state.count(token)
        return state

    @property
    def shaped(self) -> bool:
        """Whether the next token's logits are changed before it is drawn."""
        return sampler.shapes(self.sampling) or self._too_short or self.opening.guide is not None

    @property
    def greedy(self) -> bool:
        """Whether the next token is the plain argmax of its logits."""
        return self.sampling.temperature == 0 and not self.shaped

    @property
    def error(self) -> str | None:
        """Why nothing can be drawn any more."""
        guide = self.opening.guide
        reason = None if guide is None else guide.error
        return None if reason is None else f"the reply's grammar cannot go on: {reason}"

    def advance(self, token: int) -> None:
        """Takes in a token that was drawn."""
        self.count(token)
        if self.opening.guide is not None:
            self.opening.guide.advance(token)

    def count(self, token: int) -> None:
        self.generated += 1
        if self.counts is not None:
            self.counts[token] += 1

    def shape(self, row: int, shaping: Any) -> None:
        """Fills in its row of the host's arrays of a `Shaping`."""
        if self.in_prompt is not None:
            shaping.in_prompt[row], shaping.counts[row] = self.in_prompt, self.counts
        for token, bias in self.sampling.logit_bias:
            shaping.bias[row, token] = bias
        if self.opening.guide is not None:
            # Its end tokens are allowed where the text may end, whatever `min_tokens` says.
            self.opening.guide.allow(shaping.allowed[row])
        elif self._too_short:
            shaping.bias[row, list(self.opening.ends)] = -np.inf

    @property
    def _too_short(self) -> bool:
        return self.generated < self.sampling.min_tokens


def draw(
    programs: Programs, states: Mapping[int, DrawState], best: NDArray[np.int32], logits: jax.Array
) -> dict[int, Drawn]:
    """A token for each row of `states`; rows of the batch that are not in it are idle.

    Args:
        best: the argmax of each row, or NO_TOKEN where its logits are not finite.
        logits: float32 [S,V].
    """
    drawn = best
    if not all(state.greedy for state in states.values()):
        drawn = _sampled(programs, states, logits)
    tokens = np.where(best == NO_TOKEN, NO_TOKEN, drawn).astype(np.int32)
    wanted = {row: s.sampling.logprobs for row, s in states.items() if s.sampling.logprobs is not None}
    reports = {}
    if wanted:
        found = programs["logprobs", logits.shape[0], logits.shape[1]](logits, np.maximum(tokens, 0))
        reports = by_row(wanted, tokens, found)
    errors = {row: state.error for row, state in states.items()}
    return {
        row: Drawn(NO_TOKEN if errors[row] else int(tokens[row]), reports.get(row), errors[row])
        for row in states
    }


def _sampled(programs: Programs, states: Mapping[int, DrawState], logits: jax.Array) -> NDArray[np.int32]:
    count, vocabulary = logits.shape
    of_rows = [states.get(row) for row in range(count)]
    rows = sampler.RowSampling.of([(s.sampling, s.key, s.generated) if s else _IDLE for s in of_rows])
    if not any(state.shaped for state in states.values()):
        return np.asarray(programs["sample", count, vocabulary](logits, rows))
    shaping = sampler.Shaping.none(count, vocabulary)
    for row, state in states.items():
        state.shape(row, shaping)
    return np.asarray(programs["sample_shaped", count, vocabulary](logits, rows, shaping))


def usual(rows: int, vocabulary: int) -> Iterator[Key]:
    """The programs that requests need for a batch of `rows`."""
    yield from ((name, rows, vocabulary) for name in PROGRAMS)


def build(key: Key) -> Program:
    """Compiles one of `PROGRAMS`."""
    name, rows, vocabulary = key
    logits = abstract((rows, vocabulary), jnp.float32)
    if name == "logprobs":
        return compile(token_logprobs).lower(logits, abstract((rows,), jnp.int32)).compile()
    idle = sampler.RowSampling.of([_IDLE] * rows)
    if name == "sample":
        return compile(sampler.sample).lower(logits, idle).compile()
    shaping = sampler.Shaping.none(rows, vocabulary)
    return compile(sampler.sample_shaped).lower(logits, idle, shaping).compile()


def rehearse(key: Key, program: Program) -> Any:
    """Runs one of `PROGRAMS` once on zeros."""
    name, rows, vocabulary = key
    logits = jnp.zeros((rows, vocabulary))
    if name == "logprobs":
        return program(logits, np.zeros(rows, np.int32))
    idle = sampler.RowSampling.of([_IDLE] * rows)
    if name == "sample":
        return program(logits, idle)
    return program(logits, idle, sampler.Shaping.none(rows, vocabulary))
