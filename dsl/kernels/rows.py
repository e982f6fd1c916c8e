"""How many rows a program of a row kernel takes."""

from dsl.lang.kernel import Tuning
from dsl.lang.refs import Ref

ELEMENTS = 4096
"""Of a program on a GPU, about: a block of 256 threads with 16 each."""


def rows_for_gpu(rows: int, columns: int) -> dict[str, int]:
    """{"BM": ...}: one row of more than 1024 columns, so that a whole block lies along it; else several."""
    return {"BM": 1 if columns > 1024 else max(1, min(32, rows, ELEMENTS // columns))}


def _whole(x: Ref) -> dict[str, int]:
    return {"BM": x.shape[0]}


def _for_gpu(x: Ref) -> dict[str, int]:
    return rows_for_gpu(x.shape[0], x.shape[1])


TUNE: Tuning = {"xla": _whole, "cuda": _for_gpu, "metal": _for_gpu}
"""For kernels of x (rows, columns) whose tiles are `BM` whole rows."""
