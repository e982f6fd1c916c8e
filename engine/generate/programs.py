"""Compiled programs by bucket: made ahead of time by `warm`, or on demand, which is counted."""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.protocols import Progress

Key: TypeAlias = tuple[str, int, int]
"""Name of the function and its two bucket sizes."""
Program: TypeAlias = Callable[..., Any]


def abstract(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array's shape and type alone, to compile for ahead of time."""
    return jax.eval_shape(lambda: jnp.zeros(shape, dtype))


_log = logging.getLogger(__name__)

_WORKERS = 2


class Programs:
    """Thread-safe. Two threads that want the same program at once may both compile it; one is kept."""

    def __init__(self, build: Callable[[Key], Program]) -> None:
        self._build = build
        self._made: dict[Key, Program] = {}
        self._lock = threading.Lock()
        self.misses = 0

    def __getitem__(self, key: Key) -> Program:
        program = self._made.get(key)
        if program is None:
            self.misses += 1
            _log.info("compiling %s for sizes %d and %d while a request waits", *key)
            program = self._make(key)
        return program

    def warm(
        self, keys: Iterable[Key], run: Callable[[Key, Program], None], progress: Progress | None = None
    ) -> None:
        """Compiles each of `keys` that is not there yet and has `run` run it.

        XLA's CPU programs spend up to a second in their first run, so a request should not be it.
        """
        wanted = list(keys)
        report = progress or (lambda done, total: None)

        def make(key: Key) -> None:
            if key not in self._made:
                run(key, self._make(key))

        # Tracing is Python and holds the interpreter; compiling, loading and running do not.
        with ThreadPoolExecutor(_WORKERS) as pool:
            for done, _ in enumerate(pool.map(make, wanted)):
                report(done, len(wanted))
        report(len(wanted), len(wanted))

    def _make(self, key: Key) -> Program:
        program = self._build(key)
        with self._lock:
            return self._made.setdefault(key, program)
