"""Looking at rows one after the other by codes with a step of each row's own. Its twin is `index.flat`."""

import numpy as np
from numba import types

from stores.index.kernels.intrinsics import four_dots, row_dot
from stores.index.kernels.jit import compiled
from stores.index.kernels.traverse import insert, rank_exactly, read, round_query

_F32, _I32, _I64 = types.float32, types.int32, types.int64
# Rows that stay in the nearest cache while four queries after four are compared with them.
_TILE = 128
_SCAN = _I64(
    read(_F32, 2), read(types.int8, 2), read(_F32, 1), read(_F32, 1), _I64, read(types.uint8, 1),
    read(_F32, 2), read(_F32, 2), types.boolean, _I64, _I32[:, ::1], _F32[:, ::1], _F32[::1],
)  # fmt: skip


@compiled(_SCAN)
def scan_rows(
    vectors, codes, steps, halves, count, allowed, queries, padded, squared, ranked,
    out_ids, out_scores, edges,
):  # fmt: skip
    """The best of the first `count` rows for each query by their codes, the `ranked` best of those exactly.

    vectors (n, dim), codes, steps and halves (see `codecs.steps`), allowed (count,) or empty for all, queries
    (q, dim) and the same with zeros after them, padded (q, width); squared for l2. out_ids (q, k) and
    out_scores, best first, -1 where there are no more. edges (q,): no row that was not ranked is nearer, by
    its code: minus its inner product, for l2 plus its half.
    """
    flat_vectors, width = vectors.reshape(-1), codes.shape[1]
    filtered, number_of = allowed.shape[0] > 0, queries.shape[0]
    kept = np.empty((number_of, ranked + 1), np.int32)
    distances = np.empty((number_of, ranked + 1), np.float32)
    held, units = np.zeros(number_of, np.int64), np.empty(number_of, np.float32)
    groups = (number_of + 3) // 4
    rounded, line = np.zeros((groups, 4, width), np.int16), np.empty((1, width), np.int16)
    for number in range(number_of):
        units[number] = round_query(padded[number], line)
        rounded[number >> 2, number & 3] = line[0]
    dots = np.empty(4, np.int32)
    for start in range(0, count, _TILE):
        stop = min(start + _TILE, count)
        for group in range(groups):
            four, first = rounded[group], 4 * group
            last = min(first + 4, number_of)
            for row in range(start, stop):
                if filtered and not allowed[row]:
                    continue
                if last - first > 1:
                    four_dots(codes, row, four, dots)
                else:
                    dots[0] = row_dot(codes, row, four, 0)
                step, half = steps[row], halves[row]
                for number in range(first, last):
                    distance = -units[number] * step * np.float32(dots[number - first])
                    if squared:
                        distance += half
                    size = held[number]
                    if size < ranked or distance < distances[number, size - 1]:
                        _, held[number] = insert(
                            kept[number], distances[number], size, ranked, np.int32(row), distance
                        )
    for number in range(number_of):
        edges[number] = distances[number, ranked - 1] if held[number] == ranked else np.inf
        out_ids[number, :] = -1
        out_scores[number, :] = -np.inf
        rank_exactly(
            vectors, flat_vectors, queries[number], squared, kept[number], held[number],
            out_ids[number], out_scores[number],
        )  # fmt: skip
    return number_of
