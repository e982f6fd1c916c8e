"""One bit a dimension, with an unbiased estimate of inner products and its error (RaBitQ).

Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
Nearest Neighbor Search", SIGMOD 2024. A row is whole cache lines: the sign bits of the rotated residual,
then three float32:

    factor   <q, y> is about factor * (sum of q where the sign is set - half the sum of q)
    error    one standard deviation of that, for a q of length 1
    bias     |y|^2 / 2, which l2 distances add
"""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]
LINE_WORDS = 16
FACTS = 3


def row_words(width: int) -> int:
    """uint32 words of a row for `width` dimensions, a multiple of 64."""
    return -(-(width // 32 + FACTS) // LINE_WORDS) * LINE_WORDS


def encode(rotated: Float32) -> UInt32:
    """uint32 (n, row_words) of rotated residuals (n, width)."""
    count, width = rotated.shape
    rows = np.zeros((count, row_words(width)), np.uint32)
    words = width // 32
    rows[:, :words] = np.packbits(rotated > 0, axis=1, bitorder="little").view(np.uint32)
    squares = np.einsum("nd,nd->n", rotated, rotated)
    # <o, sign(o) / sqrt(width)> of the unit vector o: how well its signs alone describe it.
    kept = np.abs(rotated).sum(axis=1) / np.sqrt(width) / np.sqrt(np.maximum(squares, 1e-30))
    kept = np.clip(kept, 1e-3, 1)
    facts = rows.view(np.float32)
    facts[:, words] = 2 * np.sqrt(squares) / (kept * np.sqrt(width))
    facts[:, words + 1] = np.sqrt(squares * (1 - kept**2) / kept**2 / max(width - 1, 1))
    facts[:, words + 2] = squares / 2
    return rows


def estimate(rows: UInt32, queries: Float32) -> tuple[Float32, Float32]:
    """(inner products, one standard deviation), each (q, n): what the kernels compute, in NumPy, exactly.

    rows (n, row_words), queries (q, width).
    """
    width = queries.shape[1]
    words = width // 32
    signs = np.unpackbits(np.ascontiguousarray(rows[:, :words]).view(np.uint8), axis=1, bitorder="little")
    facts = rows.view(np.float32)
    sums = queries @ signs.T.astype(np.float32) - queries.sum(axis=1, keepdims=True) / 2
    lengths = np.linalg.norm(queries, axis=1)
    return sums * facts[:, words], lengths[:, None] * facts[:, words + 1]
