"""What every format reads into and writes from: batches of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import InvalidQuery

Float32 = NDArray[np.float32]
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Rows:
    """vectors (n, dim), which the collection checks. `first` is the number in the file of the first row."""

    ids: Sequence[str]
    vectors: Float32
    metadata: Sequence[Mapping[str, Any] | None]
    texts: Sequence[str | None]
    first: int
    sparse: Sequence[Mapping[int, float] | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def refuse(path: Path, where: str, reason: str) -> InvalidQuery:
    """An error that names the file and the line or row."""
    return InvalidQuery(f"{path.name}, {where}: {reason}")


def as_matrix(path: Path, first: int, values: Sequence[Any], what: str = "row") -> Float32:
    """float32 (n, dim) of n lists of numbers. InvalidQuery names the first that is not, or is not as long."""
    for number, value in enumerate(values):
        where = f"{what} {first + number}"
        if not isinstance(value, list) or not value:
            raise refuse(path, where, "the vector must be a list of numbers")
        if len(value) != len(values[0]):
            raise refuse(path, where, f"the vector has {len(value)} numbers, the one before {len(values[0])}")
        if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
            raise refuse(path, where, "the vector must be a list of numbers")
    with np.errstate(over="ignore"):
        return np.array(values, np.float64).astype(np.float32)
