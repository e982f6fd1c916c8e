"""What the runtime did: events for whoever wants to know, and running totals for a metrics page.

Events are few (one for each trace of a call, compilation, failed check or tuning; none for each run), so
recording costs a lock and an append. Nothing grows: the last `KEPT` events are kept, and totals are keyed
by names that this package defines, never by a kernel's.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

KEPT = 256
KINDS = ("platform", "missing", "unsupported", "compiler", "self-check")
Kind = Literal["platform", "missing", "unsupported", "compiler", "self-check"]
"""Why a backend does not run a kernel: it is for other hardware; the machine lacks a device, compiler or
library; the kernel asks for what it cannot do; the compiler refused; the numbers were wrong."""
Result = Literal["hit", "miss"]


class Refusal(str):
    """A one-line reason of `Target.refuses` that says of which kind it is; a plain str is "unsupported"."""

    __slots__ = ("kind",)
    kind: Kind

    def __new__(cls, reason: str, kind: Kind) -> "Refusal":
        made = super().__new__(cls, reason)
        made.kind = kind
        return made


def kind_of(reason: str) -> Kind:
    return reason.kind if isinstance(reason, Refusal) else "unsupported"


@dataclass(frozen=True)
class Skipped:
    """A backend that was considered and why it does not run the kernel."""

    backend: str
    reason: str
    kind: Kind = "unsupported"


@dataclass(frozen=True)
class Chosen:
    """A call was traced for a platform: the backends asked before, and the one that runs it, if any does."""

    kernel: str
    platform: str
    backend: str | None
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """Machine code was made (`result` "miss") or found in the cache ("hit"), in `seconds`."""

    kernel: str
    backend: str
    seconds: float
    result: Result


@dataclass(frozen=True)
class CheckFailed:
    """A kernel's first-use self-check found wrong numbers; the backend is off for that kernel."""

    kernel: str
    backend: str
    reason: str


@dataclass(frozen=True)
class Tuned:
    """A call was tuned: `backend` won, at `seconds` a run, among `candidates`, which took `spent` seconds."""

    kernel: str
    platform: str
    backend: str
    seconds: float
    candidates: int
    spent: float


Event: TypeAlias = Chosen | Compiled | CheckFailed | Tuned
Observer: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True)
class Totals:
    """Counts since the process began.

    Attributes:
        chosen, failed, tuned: by backend.
        skipped: by (backend, kind).
        compilations: by (backend, "hit" or "miss").
        compile_seconds: spent on misses, by backend.
    """

    chosen: Mapping[str, int]
    skipped: Mapping[tuple[str, Kind], int]
    compilations: Mapping[tuple[str, Result], int]
    compile_seconds: Mapping[str, float]
    failed: Mapping[str, int]
    tuned: Mapping[str, int]


class Profile:
    """A log of events, its totals and who watches it. Any thread may call it.

    Example:
        >>> with PROFILE.watch(print):
        ...     softmax(x)
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Event] = deque(maxlen=kept)
        self._observers: tuple[Observer, ...] = ()
        self._chosen: Counter[str] = Counter()
        self._skipped: Counter[tuple[str, Kind]] = Counter()
        self._compilations: Counter[tuple[str, Result]] = Counter()
        self._seconds: dict[str, float] = {}
        self._failed: Counter[str] = Counter()
        self._tuned: Counter[str] = Counter()

    def record(self, event: Event) -> None:
        """Counts and keeps an event, then tells the observers, in the caller's thread."""
        with self._lock:
            self._recent.append(event)
            self._count(event)
            observers = self._observers
        for observer in observers:
            observer(event)

    def _count(self, event: Event) -> None:
        match event:
            case Chosen():
                if event.backend is not None:
                    self._chosen[event.backend] += 1
                self._skipped.update((each.backend, each.kind) for each in event.skipped)
            case Compiled():
                self._compilations[event.backend, event.result] += 1
                if event.result == "miss":
                    self._seconds[event.backend] = self._seconds.get(event.backend, 0.0) + event.seconds
            case CheckFailed():
                self._failed[event.backend] += 1
            case Tuned():
                self._tuned[event.backend] += 1

    def recent(self) -> tuple[Event, ...]:
        """The last events, oldest first."""
        with self._lock:
            return tuple(self._recent)

    def totals(self) -> Totals:
        """A copy of the counts."""
        with self._lock:
            return Totals(
                dict(self._chosen),
                dict(self._skipped),
                dict(self._compilations),
                dict(self._seconds),
                dict(self._failed),
                dict(self._tuned),
            )

    @contextmanager
    def watch(self, observer: Observer) -> Iterator[None]:
        """Calls `observer` with each event until the block ends. What it raises reaches the event's cause."""
        with self._lock:
            self._observers = (*self._observers, observer)
        try:
            yield
        finally:
            with self._lock:
                self._observers = tuple(each for each in self._observers if each is not observer)


PROFILE = Profile()
"""The process's own."""
