"""How commands talk: results on stdout, everything else on stderr, one line per error."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

Stage = Callable[[str, int, int], None]
"""Called with (what, done, total): one bar per `what`."""


def fail(error: BaseException) -> NoReturn:
    """Prints one line that says what to do and exits with 1.

    Only a bug shows more: with TARSIA_DEBUG set, its traceback.
    """
    from engine.errors import TarsiaError

    if isinstance(error, TarsiaError | OSError):
        text = str(error)
    else:
        text = f"internal error: {type(error).__name__}: {error}; set TARSIA_DEBUG=1 for the traceback"
    print(f"tarsia: {' '.join(text.split())}", file=sys.stderr)
    if os.environ.get("TARSIA_DEBUG"):
        raise error
    sys.exit(1)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people on a terminal, tab-separated lines for a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def stages() -> Iterator[Stage]:
    """Progress bars on stderr when it is a terminal; otherwise nothing, so that errors stand alone."""
    if sys.stderr.isatty():
        with _bars() as stage:
            yield stage
    else:
        yield lambda what, done, total: None


@contextmanager
def logged_stages() -> Iterator[Stage]:
    """Progress bars on a terminal; otherwise a line per stage, as belongs in a service's log."""
    if sys.stderr.isatty():
        with _bars() as stage:
            yield stage
        return
    seen: set[str] = set()

    def line(what: str, done: int, total: int) -> None:
        if what not in seen:
            seen.add(what)
            print(f"tarsia: {what}", file=sys.stderr, flush=True)

    yield line


@contextmanager
def _bars() -> Iterator[Stage]:
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def stage(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield stage
