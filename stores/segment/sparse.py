"""A row's sparse vector as the bytes that are stored: sorted uint32 indices, then their float32 weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import InvalidRow

MOST_ENTRIES = 65_536
_MOST_INDEX = 2**32


def encode_sparse(row: int, entries: Any) -> bytes | None:
    """Of {index: weight}; None for None and for nothing but zeros. InvalidRow for anything else."""
    if entries is None:
        return None
    if not isinstance(entries, Mapping) or len(entries) > MOST_ENTRIES:
        raise InvalidRow(row, f"a sparse vector is a mapping of at most {MOST_ENTRIES} indices to weights")
    for index, weight in entries.items():
        if not isinstance(index, int | np.integer) or isinstance(index, bool) or not 0 <= index < _MOST_INDEX:
            raise InvalidRow(row, f"a sparse index is a whole number from 0 below 2^32, not {index!r}")
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number):
            raise InvalidRow(row, f"the weight of sparse index {index} must be a number, not {weight!r}")
    indices = np.fromiter(entries.keys(), np.int64, len(entries))
    with np.errstate(over="ignore"):
        weights = np.fromiter(entries.values(), np.float64, len(entries)).astype("<f4")
    if not np.isfinite(weights).all():
        raise InvalidRow(row, "the sparse vector holds NaN, an infinity or a number too large")
    kept = np.argsort(indices)
    kept = kept[weights[kept] != 0]
    return indices[kept].astype("<u4").tobytes() + weights[kept].tobytes() if kept.size else None


def decode_sparse(data: bytes) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Indices, ascending, and weights. ValueError for what `encode_sparse` does not make."""
    count, rest = divmod(len(data), 8)
    if rest:
        raise ValueError("a sparse vector is cut short")
    return np.frombuffer(data, "<u4", count), np.frombuffer(data, "<f4", count, 4 * count)


def as_mapping(data: bytes | None) -> dict[int, float] | None:
    """As the caller gave it, weights rounded to float32."""
    if data is None:
        return None
    indices, weights = decode_sparse(data)
    return dict(zip(indices.tolist(), weights.tolist(), strict=True))
