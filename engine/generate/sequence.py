"""One sequence between the steps of a model: what it feeds next, and what it takes from the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.generate.drawing import DrawState
from engine.generate.speculate import NgramDrafter
from engine.generate.step_model import NO_TOKEN, Drawn, Step, Table


@dataclass
class Sequence:
    """`replay` holds tokens that are known already and have no keys yet; `last` is fed after them."""

    state: DrawState
    replay: list[int]
    drafter: NgramDrafter | None = None
    last: int = 0
    position: int = 0

    def feed(self, more: int) -> list[int]:
        """The next token for the model and up to `more` after it: known ones, or guesses."""
        if self.replay:
            return self.replay[: 1 + more]
        if self.drafter is None or self.state.shaped or not more:
            return [self.last]
        return [self.last, *self.drafter.draft(more)]

    def due(self, fed: int) -> dict[int, DrawState]:
        """Which of `fed` positions give a token to be drawn, each with its state."""
        if self.replay:
            return {fed - 1: self.state} if fed == len(self.replay) else {}
        later = {n: replace(self.state, generated=self.state.generated + n) for n in range(1, fed)}
        return {0: self.state, **later}

    def take(self, fed: list[int], drawn: Mapping[int, Drawn]) -> Step:
        """The bookkeeping after `fed`: of guesses, those that the draws confirm and one token more.

        Args:
            drawn: by the number of the position, as `due` had them.
        """
        if self.replay:
            self.position += len(fed)
            del self.replay[: len(fed)]
            for one in drawn.values():
                self.advance(one)
            return Step(len(fed), tuple(drawn.values()))
        taken = []
        for number in range(len(fed)):
            taken.append(drawn[number])
            self.advance(drawn[number])
            if number + 1 < len(fed) and drawn[number].token != fed[number + 1]:
                break
        self.position += len(taken)
        if self.drafter is not None and len(fed) > 1:
            self.drafter.judge(len(taken) - 1)
        return Step(len(taken), tuple(taken))

    def advance(self, drawn: Drawn) -> None:
        """Takes in a token that was drawn for it."""
        self.last = max(drawn.token, 0)
        if drawn.token != NO_TOKEN:
            self.state.advance(drawn.token)
            if self.drafter is not None:
                self.drafter.append(drawn.token)


@dataclass(frozen=True)
class Feed:
    """What one sequence feeds in a decode step, in the rows from `row` on."""

    sequence: Sequence
    table: Table
    tokens: list[int]
    row: int

    @property
    def end(self) -> int:
        """The position after the last one fed."""
        return self.sequence.position + len(self.tokens)

    def due(self) -> dict[int, DrawState]:
        """By row, the states of the tokens to be drawn."""
        return {self.row + n: state for n, state in self.sequence.due(len(self.tokens)).items()}

    def take(self, drawn: Mapping[int, Drawn]) -> Step:
        own = range(self.row, self.row + len(self.tokens))
        return self.sequence.take(self.tokens, {row - self.row: drawn[row] for row in own if row in drawn})
