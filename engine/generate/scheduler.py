"""Decides which sequence runs next: continuous batching over slots and blocks of KV memory.

A plain object that its caller steps: no threads, no clock, no tensors. One step runs at most one
chunk of one prompt and then the next tokens of every sequence whose prompt was done before, so a long prompt
delays running streams by one chunk and no more. When memory is short, whoever came last gives its
blocks back, waits, and is computed again later.
"""

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter

from engine.errors import Overloaded
from engine.generate.block_memory import BlockMemory
from engine.generate.job import Job
from engine.generate.request import Piece
from engine.generate.step_model import NO_TOKEN, Drawn, Step, StepModel

_NOT_FINITE = "the model's output is not a number: its weights are damaged or its precision too low"
_order = attrgetter("order")

Event = tuple[Job, Piece]


class Scheduler:
    """First come, first served, as priorities shift it. Not thread-safe: one thread calls all methods.

    Args:
        slots: most sequences that run at once.
        max_queue: most jobs that wait for a slot.

    >>> scheduler = Scheduler(model, slots=4, max_queue=64)
    >>> scheduler.submit(job, now=0.0)
    >>> while scheduler.busy:
    ...     for job, piece in scheduler.step(now=0.0): print(piece.text, end="")
    """

    def __init__(self, model: StepModel, *, slots: int, max_queue: int) -> None:
        self._model = model
        self.memory = BlockMemory(count=model.blocks, size=model.block_size)
        self._free = list(range(slots))
        self._max_queue = max_queue
        self._lookahead = model.lookahead
        self._waiting: list[Job] = []
        self._prefilling: Job | None = None
        self._running: list[Job] = []
        self._events: list[Event] = []
        self._arrivals = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.preemptions = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting or self.live or self._events)

    @property
    def live(self) -> int:
        """Jobs that hold a slot."""
        return len(self._running) + (self._prefilling is not None)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def submit(self, job: Job, now: float) -> None:
        """Puts a job in the queue. Raises Overloaded if that is full and no slot is free."""
        if self.queued >= self._max_queue + len(self._free):
            raise Overloaded(f"{self.queued} requests are waiting already; try again in a moment")
        job.arrive(self._arrivals, now)
        self._arrivals += 1
        insort(self._waiting, job, key=_order)

    def cancel(self, job: Job) -> None:
        """Ends a job now; its slot is free for the next step. Nothing happens if it is over."""
        if not job.stream.finished:
            self._emit(job, job.stream.end("cancelled"))

    def fail_all(self, message: str) -> None:
        """Ends every job with an error and frees the model, for a caller whose step raised."""
        self._reset()
        for job in [*self._with_slots(), *self._waiting]:
            self._emit(job, job.stream.end("error", message))

    def step(self, now: float) -> list[Event]:
        """Advances by one step; gives what became known, in order. A job's last piece comes once."""
        self._expire(now)
        # A prompt that ends now decodes from the next step on, so that its first token leaves at once.
        running = sorted(self._running, key=_order)
        self._admit()
        self._prefill()
        self._decode(running)
        return self.take_events()

    def take_events(self) -> list[Event]:
        """What became known since the last step, such as the ends that `cancel` made."""
        events, self._events = self._events, []
        return events

    def tables(self) -> list[list[int]]:
        """The tables of all jobs that hold blocks."""
        return [job.table for job in self._with_slots()]

    def _expire(self, now: float) -> None:
        for job in [*self._with_slots(), *self._waiting]:
            if job.expires is not None and now >= job.expires:
                self._emit(job, job.stream.end("deadline"))

    def _admit(self) -> None:
        """Gives the first in the queue a slot and blocks for its prompt, if it can have them.

        One prompt at a time, so that the next one finds what this one has computed. Nobody behind the
        first goes before it, so that it cannot starve.
        """
        if self._prefilling is not None or not self._free or not self._waiting:
            return
        job = self._waiting[0]
        total = len(job.prompt) + len(job.generated)
        reuse = self._model.boundary(len(job.prompt) - 1)
        job.table = self.memory.shared(job.prompt, reuse)
        job.cached = self._model.boundary(len(job.table) * self.memory.size)
        self.memory.trim(job.table, job.cached)
        if not self._make_room(job, total + 1):
            return
        self.memory.extend(job.table, len(job.prompt))
        self.memory.hit_tokens += job.cached
        self._waiting.pop(0)
        self._prefilling = job
        job.slot = self._free.pop(0)
        try:
            self._model.start(job.slot, job.opening)
        except Exception as error:
            self._fail(job, error)

    def _make_room(self, job: Job, tokens: int) -> bool:
        """Whether memory has `tokens` positions for a waiting job, at the cost of those after it."""
        needed = self.memory.blocks_for(tokens) - len(job.table)
        while needed > self.memory.available:
            last = max(self._running, key=_order, default=None)
            if last is None or last.order < job.order:
                self.memory.release(job.table)
                return False
            self._preempt(last)
        return True

    def _prefill(self) -> None:
        job = self._prefilling
        if job is None:
            return
        try:
            step = self._model.prefill(_slot(job), job.table, job.cached)
        except Exception as error:
            if self._model.lost:
                self._fail_live(error)
            else:
                self._fail(job, error)
            return
        self.prompt_tokens += step.positions
        job.cached += step.positions
        if job.cached == len(job.prompt):
            self.memory.publish(job.prompt[: self._model.boundary(job.cached)], job.table)
            self._prefilling = None
            self._running.append(job)
            self._take(job, step)

    def _decode(self, running: list[Job]) -> None:
        jobs = [job for job in running if self._grow(job)]
        jobs = [job for job in jobs if job.slot is not None]
        if not jobs:
            return
        try:
            steps = self._model.decode([(_slot(job), job.table) for job in jobs])
        except Exception as error:
            self._fail_live(error)
            return
        for job, step in zip(jobs, steps, strict=True):
            job.cached += step.positions
            self._take(job, step)

    def _grow(self, job: Job) -> bool:
        """Room for the job's next position, at the cost of whoever came last: perhaps of itself."""
        if job.slot is None:
            return False
        if self._lookahead and self.memory.extend(job.table, job.cached + 1 + self._lookahead):
            return True
        while not self.memory.extend(job.table, job.cached + 1):
            last = max(self._with_slots(), key=_order)
            self._preempt(last)
            if last is job:
                return False
        return True

    def _preempt(self, job: Job) -> None:
        self._leave_slot(job)
        insort(self._waiting, job, key=_order)
        self.preemptions += 1

    def _take(self, job: Job, step: Step) -> None:
        for drawn in step.drawn:
            if not job.stream.finished:
                self._push(job, drawn)

    def _push(self, job: Job, drawn: Drawn) -> None:
        if drawn.token == NO_TOKEN:
            self._emit(job, job.stream.end("error", drawn.error or _NOT_FINITE))
            return
        before = job.stream.tokens
        piece = job.stream.push(drawn.token, drawn.logprobs)
        job.generated.append(drawn.token)
        self.generated_tokens += job.stream.tokens - before
        self._emit(job, piece)
        if job.guide is not None and job.guide.finished and not job.stream.finished:
            self._emit(job, job.stream.end("stop"))

    def _emit(self, job: Job, piece: Piece) -> None:
        self._events.append((job, piece))
        if piece.finish_reason is not None:
            if job in self._waiting:
                self._waiting.remove(job)
            if job.slot is not None:
                self._leave_slot(job)

    def _leave_slot(self, job: Job) -> None:
        if job is self._prefilling:
            self._prefilling = None
        else:
            self._running.remove(job)
        self._model.release(_slot(job))
        insort(self._free, _slot(job))
        self.memory.release(job.table)
        job.slot, job.cached = None, 0

    def _fail(self, job: Job, error: Exception) -> None:
        self._emit(job, job.stream.end("error", _message(error)))

    def _fail_live(self, error: Exception) -> None:
        """A failed batch may have lost the device's state, so every job with a slot ends with it."""
        self._reset()
        for job in list(self._with_slots()):
            self._fail(job, error)

    def _reset(self) -> None:
        self._model.reset()
        self.memory.clear()

    def _with_slots(self) -> Iterator[Job]:
        yield from self._running
        if self._prefilling is not None:
            yield self._prefilling


def _slot(job: Job) -> int:
    if job.slot is None:
        raise RuntimeError("a job without a slot cannot run")
    return job.slot


def _message(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"generation failed: {lines[0] if lines else type(error).__name__}"
