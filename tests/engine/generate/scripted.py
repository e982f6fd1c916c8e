"""A `StepModel` that follows a script: it checks how it is driven and needs no device."""

from collections.abc import Callable, Sequence

from engine.generate.request import SamplingParams
from engine.generate.step_model import StepModel
from engine.protocols import Progress

Script = Callable[[tuple[int, ...], int], int]
"""(prompt, how many tokens came before) -> the next token."""


def counting(prompt: tuple[int, ...], done: int) -> int:
    """Counts up from the prompt's last token."""
    return (prompt[-1] + 1 + done) % 256


class ScriptedModel:
    def __init__(self, script: Script = counting, *, max_context: int = 256) -> None:
        self.script = script
        self.max_context = max_context
        self.vocab_size = 256
        self.compile_misses = 0
        self.warmed = False
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.prompts: dict[int, tuple[int, ...]] = {}
        self.done: dict[int, int] = {}
        self.prefilling: int | None = None
        self.resets = 0

    def start(self, slot: int, prompt: Sequence[int], sampling: SamplingParams, seed: int) -> None:
        assert slot not in self.prompts, "a slot was given twice"
        self.prompts[slot] = tuple(prompt)

    def prefill(self, slot: int, start: int, limit: int) -> tuple[int, int | None]:
        assert self.prefilling in (None, slot), "two prompts at once"
        prompt = self.prompts[slot]
        count = min(limit, len(prompt) - start)
        assert count > 0
        self.calls.append(("prefill", (slot, start, count)))
        self.prefilling = slot
        if start + count < len(prompt):
            return count, None
        self.prefilling = None
        self.done[slot] = 1
        return count, self.script(prompt, 0)

    def decode(self, slots: Sequence[int]) -> list[int]:
        assert sorted(slots) == sorted(self.done), "every sequence with a finished prompt is decoded"
        self.calls.append(("decode", tuple(slots)))
        tokens = [self.script(self.prompts[slot], self.done[slot]) for slot in slots]
        for slot in slots:
            self.done[slot] += 1
        return tokens

    def release(self, slot: int) -> None:
        self.prompts.pop(slot, None)
        self.done.pop(slot, None)
        if self.prefilling == slot:
            self.prefilling = None

    def reset(self) -> None:
        self.resets += 1
        self.prompts.clear()
        self.done.clear()
        self.prefilling = None

    def warm(self, progress: Progress | None = None) -> None:
        self.warmed = True


def check(model: ScriptedModel) -> StepModel:
    """For the type checker: the script satisfies the protocol."""
    return model
