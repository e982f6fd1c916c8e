"""The scheduler under random events, model-checked: every few thousand in the tests, a million in the soak.

After each event: exactly the live jobs and the prefix tree hold blocks; nobody starts before one that
should go first; who came first keeps its slot. At the end every stream has ended once, with the very
tokens of the script, however often it was preempted.
"""

import random
from collections import Counter

import pytest

from engine.errors import Overloaded
from engine.generate.job import Job
from engine.generate.request import Piece
from engine.generate.scheduler import Scheduler
from tests.engine.generate.scripted import ScriptedModel, counting
from tests.engine.generate.test_scheduler import EOS, job

SLOTS, QUEUE = 3, 5
BEGINNINGS = [tuple(range(1, 40)), (7,) * 30, ()]


class World:
    """A scheduler, its clients and the clock."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.failing = False
        self.model = ScriptedModel(
            self.script, max_context=60, blocks=22, block_size=4, cell=8, lookahead=seed % 3
        )
        self.scheduler = Scheduler(self.model, slots=SLOTS, max_queue=QUEUE)
        self.now = 0.0
        self.open: dict[Job, list[Piece]] = {}
        self.reasons: Counter[str] = Counter()

    def script(self, prompt: tuple[int, ...], done: int) -> int:
        if self.failing and self.random.random() < 0.3:
            self.failing = False
            self.model.lost = self.random.random() < 0.5
            raise RuntimeError("now and then")
        return counting(prompt, done)

    def event(self) -> None:
        kind = self.random.choices(["step", "submit", "cancel", "fail", "wait"], [60, 25, 5, 1, 3])[0]
        if kind == "submit":
            self.submit()
        elif kind == "cancel" and self.open:
            self.scheduler.cancel(self.random.choice(list(self.open)))
        elif kind == "fail":
            self.failing = True
        elif kind == "wait":
            self.now += self.random.expovariate(0.2)
        else:
            self.step()
        self.check()

    def submit(self) -> None:
        beginning = self.random.choice(BEGINNINGS)[: self.random.randint(0, 39)]
        prompt = (*beginning, *(self.random.randint(60, 250) for _ in range(self.random.randint(1, 6))))
        one = job(
            prompt=prompt,
            max_tokens=self.random.randint(1, 60 - len(prompt)),
            priority=self.random.choice([0, 0, 0, -2, 3]),
            timeout=self.random.choice([None, 15.0, 40.0]),
            stop=("AB",),
        )
        try:
            self.scheduler.submit(one, self.now)
        except Overloaded:
            assert self.scheduler.queued >= QUEUE
        else:
            self.open[one] = []

    def step(self) -> None:
        waiting = list(self.scheduler._waiting)
        present = [*self.scheduler._with_slots(), *waiting]
        first = min(present, key=lambda one: one.order, default=None)
        had_slot = first is not None and first.slot is not None
        events = self.scheduler.step(self.now)
        for one in waiting:
            if one.slot is not None or any(found is one and piece.token_ids for found, piece in events):
                behind = [other for other in waiting if other.order < one.order]
                assert all(other.stream.finished or other.slot is not None for other in behind)
        if first is not None and had_slot and not first.stream.finished:
            assert first.slot is not None, "who came first lost its slot"
        for one, piece in events:
            self.receive(one, piece)

    def receive(self, one: Job, piece: Piece) -> None:
        self.open[one].append(piece)
        if piece.finish_reason is not None:
            self.reasons[piece.finish_reason] += 1
            pieces = self.open.pop(one)
            tokens = [token for piece in pieces for token in piece.token_ids]
            script = [counting(one.prompt, done) for done in range(len(tokens) + 1)]
            assert tokens == script[:-1], "a reply is not what the script says"
            assert one.slot is None and not one.table
            if piece.finish_reason == "stop" and "AB" not in "".join(map(chr, tokens)):
                assert script[-1] == EOS

    def check(self) -> None:
        assert self.scheduler.live <= SLOTS
        assert len(self.model.sequences) == self.scheduler.live
        assert len(self.scheduler._free) == SLOTS - self.scheduler.live
        self.scheduler.memory.check(self.scheduler.tables())

    def finish(self) -> None:
        for _ in range(20_000):
            if not self.scheduler.busy:
                break
            self.step()
        assert not self.open, "a stream never ended"
        assert not self.scheduler.tables()
        assert self.scheduler.memory.held == 0
        self.check()


@pytest.mark.parametrize("seed", range(6))
def test_a_few_thousand_random_events(seed: int):
    world = World(seed)
    for _ in range(2_500):
        world.event()
    world.finish()
    assert world.scheduler.preemptions > 10
    assert world.scheduler.memory.evictions > 10
    assert world.scheduler.memory.hit_tokens > 100
    assert set(world.reasons) == {"stop", "length", "cancelled", "deadline", "error"}


@pytest.mark.soak
def test_a_million_random_events():
    for seed in range(50):
        world = World(seed)
        for _ in range(20_000):
            world.event()
        world.finish()
