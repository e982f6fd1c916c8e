"""int8 codes with a step of each row's own: for rows that no frame has been fitted to, as they come."""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from stores.index.codecs.rotation import padded_dim

Float32 = NDArray[np.float32]
_SLAB = 4096


@dataclass(frozen=True)
class Steps:
    """codes int8 (n, width), width a multiple of 64; a row is about codes * step, steps (n,); halves (n,) are
    half of the squared lengths."""

    codes: NDArray[np.int8]
    steps: Float32
    halves: Float32

    @classmethod
    def empty(cls, count: int, dim: int) -> "Steps":
        return cls(
            np.zeros((count, padded_dim(dim)), np.int8),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
        )

    def encode(self, vectors: Float32, start: int, stop: int) -> None:
        """Fills in the codes of rows [start, stop) of `vectors` (n, dim)."""
        for first in range(start, stop, _SLAB):
            last = min(first + _SLAB, stop)
            rows = vectors[first:last]
            steps = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-30)) / np.float32(127)
            self.codes[first:last, : rows.shape[1]] = np.rint(rows / steps[:, None])
            self.steps[first:last] = steps
            self.halves[first:last] = np.einsum("nd,nd->n", rows, rows) / 2


class GrowingSteps:
    """Codes of rows that are only ever added to; each is encoded once, when first asked for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known = 0
        self._steps: Steps | None = None

    def upto(self, vectors: Float32, count: int) -> Steps:
        """Codes of the first `count` of `vectors` (capacity, dim), or of more."""
        with self._lock:
            if self._steps is None or len(self._steps.steps) < count:
                grown = Steps.empty(max(len(vectors), count), vectors.shape[1])
                if self._steps is not None:
                    grown.codes[: self._known] = self._steps.codes[: self._known]
                    grown.steps[: self._known] = self._steps.steps[: self._known]
                    grown.halves[: self._known] = self._steps.halves[: self._known]
                self._steps = grown
            if self._known < count:
                self._steps.encode(vectors, self._known, count)
                self._known = count
            return self._steps
