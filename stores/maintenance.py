"""Sealing and merging beside the work that people wait for: two threads of a database; merging steps aside
for readers."""

import atexit
import os
import threading
import time
from collections.abc import Callable

_NICENESS = 10
_LONGEST_PAUSE = 0.25


class Cancelled(Exception):
    """Work was stopped because its collection is closed, or compacted as a whole."""


class Worker:
    """Runs jobs one after the other; a job asked for again before it began runs once."""

    def __init__(self, name: str, niceness: int = 0) -> None:
        self._name, self._niceness = name, niceness
        self._changed = threading.Condition()
        self._jobs: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, job: Callable[[], None]) -> None:
        """`job` must not raise."""
        with self._changed:
            if self._closed or job in self._jobs:
                return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
                # A daemon thread inside compiled code must not outlive the interpreter.
                atexit.register(self.close)
            self._changed.notify()

    def _run(self) -> None:
        if self._niceness and hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs.pop(0)
            job()

    def close(self) -> None:
        """Waits for the job in progress, which its owner has told to stop; drops the others."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            atexit.unregister(self.close)


class Workers:
    """A database's threads: the sealing of memtables must not wait for a long merge."""

    def __init__(self) -> None:
        self.sealing = Worker("tarsia-seal")
        self.merging = Worker("tarsia-merge", _NICENESS)

    def close(self) -> None:
        """`Worker.close`, of both."""
        self.sealing.close()
        self.merging.close()


class Pace:
    """A progress callback for background work: it raises when told to stop, and sleeps while readers read.

    Work takes half of the time then, so that a query waits for no more than a step of it.
    """

    def __init__(self, stopping: Callable[[], bool], last_read: Callable[[], float]) -> None:
        self._stopping, self._last_read = stopping, last_read
        self._resumed = time.monotonic()

    def __call__(self, share: float) -> None:
        if self._stopping():
            raise Cancelled
        now = time.monotonic()
        worked = now - self._resumed
        if self._last_read() > self._resumed:
            time.sleep(min(worked, _LONGEST_PAUSE))
        self._resumed = time.monotonic()
