"""Looking at rows one after the other by codes with a step of each row's own. Its twin is `index.flat`."""

import numpy as np
from numba import types

from stores.index.kernels.intrinsics import row_dot
from stores.index.kernels.jit import compiled
from stores.index.kernels.traverse import insert, rank_exactly, read, round_query

_F32, _I32, _I64 = types.float32, types.int32, types.int64
_SCAN = _I64(
    read(_F32, 2), read(types.int8, 2), read(_F32, 1), read(_F32, 1), _I64, read(types.uint8, 1),
    read(_F32, 2), read(_F32, 2), types.boolean, _I64, _I32[:, ::1], _F32[:, ::1],
)  # fmt: skip


@compiled(_SCAN)
def scan_rows(
    vectors, codes, steps, halves, count, allowed, queries, padded, squared, ranked, out_ids, out_scores
):  # fmt: skip
    """The best of the first `count` rows for each query by their codes, the `ranked` best of those exactly.

    vectors (n, dim), codes, steps and halves (see `codecs.steps`), allowed (count,) or empty for all, queries
    (q, dim) and the same with zeros after them, padded (q, width); squared for l2. out_ids (q, k) and
    out_scores, best first, -1 where there are no more.
    """
    flat_vectors = vectors.reshape(-1)
    filtered = allowed.shape[0] > 0
    kept, distances = np.empty(ranked + 1, np.int32), np.empty(ranked + 1, np.float32)
    rounded = np.empty((1, codes.shape[1]), np.int16)
    for number in range(queries.shape[0]):
        unit = round_query(padded[number], rounded)
        held = 0
        for row in range(count):
            if filtered and not allowed[row]:
                continue
            distance = -unit * steps[row] * np.float32(row_dot(codes, row, rounded, 0))
            if squared:
                distance += halves[row]
            if held < ranked or distance < distances[held - 1]:
                _, held = insert(kept, distances, held, ranked, np.int32(row), distance)
        out_ids[number, :] = -1
        out_scores[number, :] = -np.inf
        rank_exactly(
            vectors, flat_vectors, queries[number], squared, kept, held, out_ids[number], out_scores[number]
        )
    return queries.shape[0]
