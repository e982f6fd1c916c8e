import numpy as np
import pytest
from numba import njit

from stores.index.kernels.intrinsics import four_dots, four_products, row_dot, weigh


@njit
def dots(left, right):
    found = np.empty(left.shape[0], np.int64)
    for row in range(left.shape[0]):
        found[row] = row_dot(left, row, right, 0)
    return found


@njit
def four(left, right):
    found = np.empty((left.shape[0], 4), np.int32)
    for row in range(left.shape[0]):
        four_dots(left, row, right, found[row])
    return found


@njit
def products(left, right):
    found = np.empty((left.shape[0], 4), np.float32)
    for row in range(left.shape[0]):
        four_products(left, row, right, 1, found[row])
    return found


@njit
def weighed(bits, planes):
    found = np.empty(bits.shape[0], np.uint64)
    for row in range(bits.shape[0]):
        found[row] = weigh(bits, row, planes)
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


@pytest.mark.parametrize("width", [64, 384])
def test_four_dots_are_the_integer_products(width: int) -> None:
    rng = np.random.default_rng(width)
    left = rng.integers(-128, 128, (40, width)).astype(np.int8)
    right = rng.integers(-5000, 5000, (4, width)).astype(np.int16)
    assert (four(left, right) == left.astype(np.int64) @ right.T.astype(np.int64)).all()


@pytest.mark.parametrize("width", [32, 384])
def test_four_products_are_those_of_matrices(width: int) -> None:
    rng = np.random.default_rng(width)
    left, right = (rng.standard_normal((rows, width)).astype(np.float32) for rows in (20, 5))
    np.testing.assert_allclose(products(left, right), left @ right[1:].T, atol=1e-4)


@pytest.mark.parametrize("words", [8, 32])
def test_planes_are_weighed_by_the_bits_they_share(words: int) -> None:
    rng = np.random.default_rng(words)
    bits, planes = (rng.integers(0, 2**64, (rows, words), np.uint64) for rows in (20, 5))
    bits[0], planes[4] = 2**64 - 1, 2**64 - 1
    for row, found in zip(bits.tolist(), weighed(bits, planes).tolist(), strict=True):
        shared = [
            sum((own & other).bit_count() for own, other in zip(row, plane, strict=True))
            for plane in planes.tolist()
        ]
        assert found == shared[0] + 2 * shared[1] + 4 * shared[2] + 8 * shared[3] + (shared[4] << 32)
