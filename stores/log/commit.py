"""Group commit: writers that arrive during a sync share the next one.

Each writer queues its entry, then waits for its turn to lead. Whoever leads takes everything queued,
appends it with one sync, applies the records in log order, and the others find their results ready.
No condition variable and no thread of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any

from stores.errors import LogFailed
from stores.log.disk import Buffer
from stores.log.records import Record
from stores.log.wal import Log


@dataclass(eq=False)
class _Ticket:
    entry: tuple[int, Sequence[Buffer]]
    meaning: Any = None
    result: int | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None


class GroupCommit:
    """`apply(record, meaning)` returns the number of rows it changed; it is called in log order, one at a
    time, with what the writer had encoded, so that nothing is decoded that was in memory a moment ago.

    `exclusive` is held while a group is written and applied; hold it to keep writers out.
    """

    def __init__(self, log: Log, apply: Callable[[Record, Any], int]) -> None:
        self._log, self._apply = log, apply
        self._queue: list[_Ticket] = []
        self._queue_lock = Lock()
        self.exclusive = RLock()
        self.groups = self.entries = 0

    def submit(self, kind: int, payload: Sequence[Buffer], meaning: Any = None) -> int:
        """Durable and visible on return, with what `apply` returned. StoreFull, LogFailed."""
        ticket = _Ticket((kind, payload), meaning)
        with self._queue_lock:
            self._queue.append(ticket)
        with self.exclusive:
            if not ticket.done:
                with self._queue_lock:
                    group, self._queue = self._queue, []
                self._commit(group)
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None
        return ticket.result

    def submit_alone(self, kind: int, make: Callable[[], Sequence[Buffer] | None]) -> int:
        """As `submit`, of a payload made from the state with all writers held off; 0 for None."""
        with self.exclusive:
            payload = make()
            if payload is None:
                return 0
            ticket = _Ticket((kind, payload))
            self._commit([ticket])
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None
        return ticket.result

    def _commit(self, group: list[_Ticket]) -> None:
        logged = False
        try:
            records = self._log.append([ticket.entry for ticket in group])
            logged = True
            for ticket, record in zip(group, records, strict=True):
                ticket.result = self._apply(record, ticket.meaning)
            self.groups += 1
            self.entries += len(group)
        except BaseException as error:
            if logged:
                self._log.poison(f"a write could not be applied: {error!r}")
            for ticket in group:
                if ticket.result is None:
                    ticket.error = (
                        error if isinstance(error, Exception) else LogFailed("the write was interrupted")
                    )
            if not isinstance(error, Exception):
                raise
