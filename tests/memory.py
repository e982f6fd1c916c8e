"""How much memory a piece of work takes at its peak, as Linux counts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def within(most: int) -> Iterator[None]:
    """Fails if the process is at any time in the block more than `most` bytes larger than before it.

    Writing 5 to clear_refs sets the peak back to what is resident now (proc(5)).
    """
    if not REFERENCES.exists():
        pytest.skip("needs Linux's peak of resident memory")
    REFERENCES.write_text("5")
    before = _peak()
    yield
    grown = _peak() - before
    assert grown <= most, f"{grown >> 20} MiB more than before, {most >> 20} MiB may be"


def _peak() -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
