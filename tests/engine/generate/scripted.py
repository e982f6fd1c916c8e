"""A `StepModel` that follows a script: it checks how it is driven and needs no device.

It remembers which token was written where in which block, and before it "computes" anything, looks
whether its whole context lies in the blocks it was given: so blocks that leak, are shared wrongly or
overwritten are found at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.generate.step_model import Drawn, Opening, Step, StepModel, Table
from engine.protocols import Progress

Script = Callable[[tuple[int, ...], int], int]
"""(prompt, how many tokens came before) -> the next token."""


def counting(prompt: tuple[int, ...], done: int) -> int:
    """Counts up from the prompt's last token."""
    return (prompt[-1] + 1 + done) % 256


@dataclass
class Written:
    """A sequence: its tokens that have keys, those drawn, and those to be replayed."""

    opening: Opening
    tokens: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return len(self.tokens) >= len(self.opening.prompt)


class ScriptedModel:
    def __init__(
        self,
        script: Script = counting,
        *,
        max_context: int = 256,
        blocks: int | None = None,
        block_size: int = 4,
        cell: int = 16,
        lookahead: int = 0,
    ) -> None:
        self.script = script
        self.max_context = max_context
        self.vocab_size = 256
        self.compile_misses = 0
        self.block_size = block_size
        self.blocks = blocks or 8 * max_context // block_size
        self.cell = cell
        self.lookahead = lookahead
        self.drafted = self.accepted = 0
        self.lost = False
        self.warmed = False
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.sequences: dict[int, Written] = {}
        self.memory: dict[tuple[int, int], int] = {}
        self.resets = 0

    def boundary(self, tokens: int) -> int:
        return tokens // self.cell * self.cell

    def start(self, slot: int, opening: Opening) -> None:
        assert slot not in self.sequences, "a slot was given twice"
        self.sequences[slot] = Written(opening, drawn=list(opening.generated))

    def prefill(self, slot: int, table: Table, start: int) -> Step:
        one = self.sequences[slot]
        prompt = one.opening.prompt
        if not one.tokens:
            one.tokens = list(prompt[:start])
        assert start == len(one.tokens) == self.boundary(start), "a prompt is taken up at a boundary"
        count = min(self.cell, len(prompt) - start)
        assert count > 0
        self.calls.append(("prefill", (slot, start, count)))
        self._check_context(one, table)
        for token in prompt[start : start + count]:
            self._write(one, table, token)
        if not one.ready or one.opening.generated:
            return Step(count)
        return Step(count, (self._draw(one),))

    def decode(self, batch: Sequence[tuple[int, Table]]) -> list[Step]:
        slots = [slot for slot, _ in batch]
        assert len(set(slots)) == len(slots)
        assert all(self.sequences[slot].ready for slot in slots)
        self.calls.append(("decode", tuple(slots)))
        return [self._decode_one(self.sequences[slot], table) for slot, table in batch]

    def release(self, slot: int) -> None:
        self.sequences.pop(slot, None)

    def reset(self) -> None:
        self.resets += 1
        self.lost = False
        self.sequences.clear()
        self.memory.clear()

    def warm(self, progress: Progress | None = None, context: int | None = None) -> None:
        self.warmed = True

    def _decode_one(self, one: Written, table: Table) -> Step:
        self._check_context(one, table)
        fed = len(one.tokens) - len(one.opening.prompt)
        known = one.drawn[fed:]
        self._write(one, table, known[0])
        if len(known) > 1:
            return Step(1)
        drawn = [self._draw(one)]
        room = len(table) * self.block_size - len(one.tokens)
        for _ in range(min(self.lookahead, room, len(one.tokens) % 3)):
            self._write(one, table, drawn[-1].token)
            drawn.append(self._draw(one))
        return Step(len(drawn), tuple(drawn))

    def _draw(self, one: Written) -> Drawn:
        token = self.script(one.opening.prompt, len(one.drawn))
        one.drawn.append(token)
        return Drawn(token)

    def _write(self, one: Written, table: Table, token: int) -> None:
        place = len(one.tokens)
        self.memory[table[place // self.block_size], place % self.block_size] = token
        one.tokens.append(token)

    def _check_context(self, one: Written, table: Table) -> None:
        size = self.block_size
        assert all(1 <= block <= self.blocks for block in table)
        found = [self.memory.get((table[at // size], at % size)) for at in range(len(one.tokens))]
        assert found == one.tokens, "the blocks of a sequence do not hold its tokens"


def check(model: ScriptedModel) -> StepModel:
    """For the type checker: the script satisfies the protocol."""
    return model
