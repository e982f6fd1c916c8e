import numpy as np
import pytest
from numba import njit

from stores.index.kernels.intrinsics import popcount, row_dot


@njit
def dots(left, right):
    found = np.empty(left.shape[0], np.int64)
    for row in range(left.shape[0]):
        found[row] = row_dot(left, row, right, 0)
    return found


@njit
def ones(words):
    found = np.empty(len(words), np.uint64)
    for at in range(len(words)):
        found[at] = popcount(words[at])
    return found


@pytest.mark.parametrize("width", [64, 128, 384, 1536])
@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_row_dot_is_the_integer_product(width: int, kind: type) -> None:
    rng = np.random.default_rng(width)
    left = rng.integers(-128, 128, (40, width)).astype(np.int8)
    limit = 128 if kind is np.int8 else min(8191, 2**31 // (128 * width) - 1)
    right = rng.integers(-limit, limit, (1, width)).astype(kind)
    right[0, : width // 2] = -limit if kind is np.int16 else -128
    left[0] = -128
    assert (dots(left, right) == left.astype(np.int64) @ right[0].astype(np.int64)).all()


def test_popcount_counts_bits() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    assert ones(words).tolist() == [int(word).bit_count() for word in words]
