"""What `build` needs from a weights file, whatever its format."""

from collections.abc import Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.ops.quant import QTensor, QuantKind

ALL = slice(None)


class TensorSource(Protocol):
    """Tensors by name. `rows` is a slice without a step along the first axis."""

    @property
    def label(self) -> str:
        """What errors call the source: a path."""

    def names(self) -> Collection[str]:
        """Every tensor's name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Row-major shape, matrices (out, in)."""

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        """The tensor, or rows of it, in float32."""

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        """A matrix in groups of 32, taken over exactly where the file's own blocks fit `kind`."""
