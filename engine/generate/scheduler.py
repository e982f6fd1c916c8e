"""Decides which sequence runs next: continuous batching over a fixed number of slots.

A plain object that its caller steps: no threads, no clock, no tensors. One step runs at most one
chunk of one prompt and then one token of every sequence whose prompt is done, so a long prompt
delays running streams by one chunk and no more.
"""

from collections import deque
from dataclasses import dataclass, field

from engine.errors import Overloaded
from engine.generate.request import GenerationRequest, Piece
from engine.generate.step_model import NO_TOKEN, StepModel
from engine.generate.text_stream import TextStream

CHUNK_ALONE = 256
"""Prompt tokens of one step while no stream is running: as many as pay off."""
CHUNK_SHARED = 64
"""Prompt tokens of one step beside running streams: about three of their steps on a CPU."""

_NOT_FINITE = "the model's output is not a number: its weights are damaged or its precision too low"


@dataclass(eq=False)
class Job:
    """One request on its way through the scheduler."""

    request: GenerationRequest
    stream: TextStream
    seed: int
    slot: int | None = field(default=None, init=False)
    prefilled: int = field(default=0, init=False)


Event = tuple[Job, Piece]


class Scheduler:
    """First come, first served. Not thread-safe: one thread calls all methods.

    Args:
        slots: most sequences that run at once.
        max_queue: most jobs that wait for a slot.

    >>> scheduler = Scheduler(model, slots=4, max_queue=64)
    >>> scheduler.submit(job)
    >>> while scheduler.busy:
    ...     for job, piece in scheduler.step(): print(piece.text, end="")
    """

    def __init__(self, model: StepModel, *, slots: int, max_queue: int) -> None:
        self._model = model
        self._free = list(range(slots))
        self._max_queue = max_queue
        self._waiting: deque[Job] = deque()
        self._prefilling: deque[Job] = deque()
        self._running: list[Job] = []
        self._events: list[Event] = []
        self.prompt_tokens = 0
        self.generated_tokens = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting or self._prefilling or self._running or self._events)

    @property
    def live(self) -> int:
        """Jobs that hold a slot."""
        return len(self._prefilling) + len(self._running)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Puts a job at the end of the queue. Raises Overloaded if that is full and no slot is free."""
        if self.queued >= self._max_queue + len(self._free):
            raise Overloaded(f"{self.queued} requests are waiting already; try again in a moment")
        self._waiting.append(job)

    def cancel(self, job: Job) -> None:
        """Ends a job now; its slot is free for the next step. Nothing happens if it is over."""
        if not job.stream.finished:
            self._emit(job, job.stream.end("cancelled"))

    def fail_all(self, message: str) -> None:
        """Ends every job with an error and frees the model, for a caller whose step raised."""
        self._model.reset()
        for job in [*self._running, *self._prefilling, *self._waiting]:
            self._emit(job, job.stream.end("error", message))

    def step(self) -> list[Event]:
        """Advances by one step; gives what became known, in order. A job's last piece comes once."""
        self._admit()
        self._prefill()
        self._decode()
        return self.take_events()

    def take_events(self) -> list[Event]:
        """What became known since the last step, such as the ends that `cancel` made."""
        events, self._events = self._events, []
        return events

    def _admit(self) -> None:
        while self._free and self._waiting:
            job = self._waiting.popleft()
            job.slot = self._free.pop(0)
            self._prefilling.append(job)
            request = job.request
            try:
                self._model.start(job.slot, request.prompt_ids, request.sampling, job.seed)
            except Exception as error:
                self._fail(job, error)

    def _prefill(self) -> None:
        if not self._prefilling:
            return
        job = self._prefilling[0]
        limit = CHUNK_SHARED if self._running else CHUNK_ALONE
        try:
            count, token = self._model.prefill(_slot(job), job.prefilled, limit)
        except Exception as error:
            self._fail(job, error)
            return
        job.prefilled += count
        self.prompt_tokens += count
        if token is not None:
            self._running.append(self._prefilling.popleft())
            self._push(job, token)

    def _decode(self) -> None:
        jobs = list(self._running)
        if not jobs:
            return
        try:
            tokens = self._model.decode([_slot(job) for job in jobs])
        except Exception as error:
            self._fail_running(error)
            return
        for job, token in zip(jobs, tokens, strict=True):
            self._push(job, token)

    def _push(self, job: Job, token: int) -> None:
        if token == NO_TOKEN:
            self._emit(job, job.stream.end("error", _NOT_FINITE))
            return
        before = job.stream.tokens
        piece = job.stream.push(token)
        self.generated_tokens += job.stream.tokens - before
        self._emit(job, piece)

    def _emit(self, job: Job, piece: Piece) -> None:
        self._events.append((job, piece))
        if piece.finish_reason is not None:
            self._leave(job)

    def _leave(self, job: Job) -> None:
        for place in (self._waiting, self._prefilling, self._running):
            if job in place:
                place.remove(job)
        if job.slot is not None:
            self._model.release(job.slot)
            self._free.append(job.slot)
            self._free.sort()
            job.slot = None

    def _fail(self, job: Job, error: Exception) -> None:
        self._emit(job, job.stream.end("error", _message(error)))

    def _fail_running(self, error: Exception) -> None:
        """A failed batch may have lost the device's state, so every job with a slot ends with it."""
        self._model.reset()
        for job in [*self._running, *self._prefilling]:
            self._fail(job, error)


def _slot(job: Job) -> int:
    if job.slot is None:
        raise RuntimeError("a job without a slot cannot run")
    return job.slot


def _message(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"generation failed: {lines[0] if lines else type(error).__name__}"
