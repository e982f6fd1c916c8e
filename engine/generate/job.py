"""One request on its way through the scheduler, and the order in which requests have their turn."""

from dataclasses import dataclass, field

from engine.generate.guide import Guide
from engine.generate.request import GenerationRequest
from engine.generate.step_model import Opening
from engine.generate.text_stream import TextStream

ARRIVALS_A_PRIORITY = 16
"""For each step of its priority, a request goes before those that came fewer than so many before it."""


@dataclass(eq=False)
class Job:
    """Made by the caller; everything but the first four is the scheduler's.

    Attributes:
        table: the blocks it holds.
        cached: how many of its positions have keys and values in them.
        generated: its tokens so far, kept for the case that it is preempted.
        order: whoever has the smaller one goes first, and is preempted last.
        expires: when it ends, by the scheduler's clock.
    """

    request: GenerationRequest
    stream: TextStream
    seed: int
    guide: Guide | None = None
    slot: int | None = field(default=None, init=False)
    table: list[int] = field(default_factory=list, init=False)
    cached: int = field(default=0, init=False)
    generated: list[int] = field(default_factory=list, init=False)
    order: tuple[int, int] = field(default=(0, 0), init=False)
    expires: float | None = field(default=None, init=False)

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.request.prompt_ids

    @property
    def opening(self) -> Opening:
        sampling = self.request.sampling
        return Opening(self.prompt, sampling, self.seed, self.stream.ends, tuple(self.generated), self.guide)

    def arrive(self, number: int, now: float) -> None:
        """Fixes its place among all requests: it is the `number`-th to come.

        A priority moves a request by a fixed number of arrivals. So one that waits is overtaken by a
        bounded number of later ones, whatever their priority: nobody starves.
        """
        self.order = (number + self.request.priority * ARRIVALS_A_PRIORITY, number)
        if self.request.timeout is not None:
            self.expires = now + self.request.timeout
