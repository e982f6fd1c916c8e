"""The vectors that a graph is built over, a few at a time, in the frame's coordinates."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stores.index.codecs.frame import Frame, Vectors

Float32 = NDArray[np.float32]


class Places(Protocol):
    """Rows in a space where near in distance is near."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int32] | NDArray[np.int64], /) -> Float32:
        """(len(rows), width)."""


@dataclass(frozen=True)
class Points:
    """The first `count` of `vectors` (n, dim), which may be mapped from a file larger than memory."""

    vectors: Vectors
    frame: Frame
    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, rows: NDArray[np.int32] | NDArray[np.int64]) -> Float32:
        """Residuals (len(rows), len(frame.centre)): near in distance is near by the metric."""
        return self.frame.residuals(self.vectors[rows])


def padded(rows: Float32, size: int) -> Float32:
    """`rows` with zeros after them, `size` rows in all."""
    found: Float32 = np.zeros((size, *rows.shape[1:]), np.float32)
    found[: len(rows)] = rows
    return found
