"""Token rows of many lengths as a few padded batches: one sequence bucket each, shortest first."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from numpy.typing import NDArray

from engine.shapes import BATCH_BUCKETS, bucket

_BATCH_TOKENS = {"cpu": 1024}
"""Padded tokens of one batch at most, by platform; 4096 on others. A CPU's cache holds what 1024 make: with
4096 of them MiniLM takes a quarter longer."""


def batch_rows(length: int) -> int:
    """The most rows of `length` tokens in a batch, here."""
    return max(1, min(BATCH_BUCKETS[-1], _BATCH_TOKENS.get(jax.default_backend(), 4096) // length))


def length_batches(lengths: Sequence[int], buckets: Sequence[int]) -> Iterator[list[int]]:
    """Indices of `lengths` in batches; each length must fit the last of the ascending `buckets`."""
    ordered = sorted(range(len(lengths)), key=lambda i: lengths[i])
    while ordered:
        length = bucket(lengths[ordered[0]], buckets)
        fitting = sum(lengths[i] <= length for i in ordered[: batch_rows(length)])
        yield ordered[:fitting]
        ordered = ordered[fitting:]


def padded(rows: Sequence[Sequence[int]], buckets: Sequence[int], fill: int) -> NDArray[np.int32]:
    """The rows, Int (batch, sequence), both sizes rounded up to a bucket and filled up with `fill`."""
    size = (bucket(len(rows), BATCH_BUCKETS), bucket(max(map(len, rows)), buckets))
    array = np.full(size, fill, np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


def padding_mask(rows: Sequence[Sequence[int]], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """1 where `padded` put a token of a row, 0 elsewhere."""
    lengths = np.zeros(shape[0], np.int32)
    lengths[: len(rows)] = [len(row) for row in rows]
    return (np.arange(shape[1]) < lengths[:, None]).astype(np.int32)
