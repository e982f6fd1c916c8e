"""Best-first search of a graph: numba, without the interpreter's lock. Its twin is `graph.jax_search`.

A pool holds the `ef` nearest nodes found, nearest first. The nearest that is not yet expanded gives its
neighbours; those whose 1-bit estimate cannot beat the pool's last are skipped, the others are measured by
their int8 codes. The best of the pool are then ranked by their float32 vectors. Rows are taken as views
and looped over by the query's length: flat indexing keeps numba's wraparound check, 6 to 9 times slower.
"""

import numpy as np
from numba import types

from stores.index.kernels.intrinsics import four_products, prefetch, row_dot, weigh
from stores.index.kernels.jit import compiled, inlined

_F32, _I32, _I64 = types.float32, types.int32, types.int64


def read(dtype: types.Type, axes: int) -> types.Array:
    return types.Array(dtype, axes, "C", readonly=True)


@inlined
def prefetch_row(flat, row, width):
    """All lines of a row of int8 codes."""
    start = np.int64(row) * width
    for at in range(0, width, 64):
        prefetch(flat, start + at)


@compiled(_I64(read(_F32, 2), read(_F32, 2), _F32[:, ::1]))
def rotate(rows, transposed, out):
    """rows (q, d) times a matrix (d, width), given transposed, into out (q, width); d a multiple of 32.

    NumPy's product has threads of its own, which those that search wait for: two searched no faster than one.
    """
    done, four = rows.shape[0] // 4 * 4, np.empty(4, np.float32)
    for first in range(0, done, 4):
        for place in range(transposed.shape[0]):
            four_products(transposed, place, rows, first, four)
            for at in range(4):
                out[first + at, place] = four[at]
    for number in range(done, rows.shape[0]):
        row = rows[number]
        for place in range(transposed.shape[0]):
            line = transposed[place]
            total = np.float32(0)
            for at in range(row.shape[0]):
                total += row[at] * line[at]
            out[number, place] = total
    return rows.shape[0]


@inlined
def round_query(rotated, rounded):
    """int16 codes of a query, as fine as int32 sums of products with int8 allow; returns units per step."""
    width = rotated.shape[0]
    largest = np.float32(1e-30)
    for at in range(width):
        largest = max(largest, abs(rotated[at]))
    most = np.float32(min(8191, (1 << 31) // (128 * width) - 1))
    for at in range(width):
        rounded[0, at] = np.int16(np.rint(rotated[at] / largest * most))
    return largest / most


@inlined
def bit_planes(rotated, planes):
    """The query in 16 steps, one bit of the step number per plane, and a plane of ones: (lowest, step, sum,
    length). planes (5, words or more)."""
    lowest, highest = rotated.min(), rotated.max()
    step = max((highest - lowest) / np.float32(15), np.float32(1e-30))
    total, square = np.float32(0), np.float32(0)
    planes[:] = 0
    for word in range(rotated.shape[0] // 64):
        planes[4, word] = ~np.uint64(0)
        p0, p1, p2, p3 = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
        for bit in range(64):
            value = rotated[word * 64 + bit]
            total += value
            square += value * value
            number = np.uint64((value - lowest) / step + np.float32(0.5))
            shift = np.uint64(bit)
            p0 |= (number & np.uint64(1)) << shift
            p1 |= ((number >> np.uint64(1)) & np.uint64(1)) << shift
            p2 |= ((number >> np.uint64(2)) & np.uint64(1)) << shift
            p3 |= ((number >> np.uint64(3)) & np.uint64(1)) << shift
        planes[0, word], planes[1, word], planes[2, word], planes[3, word] = p0, p1, p2, p3
    return lowest, step, total, np.sqrt(square)


@inlined
def planes_dot(bits, row, planes, lowest, step, total):
    """The sum of the query where the row's signs are set, less half the sum of all."""
    counted = weigh(bits, row, planes)
    weighted, ones = counted & np.uint64(0xFFFFFFFF), counted >> np.uint64(32)
    return step * np.float32(weighted) + lowest * np.float32(ones) - np.float32(0.5) * total


@inlined
def insert(ids, distances, size, most, node, distance):
    """Puts a node in its place of a list sorted by distance; (place, new size). `most` may push one out."""
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if distances[middle] <= distance:
            low = middle + 1
        else:
            high = middle
    last = size if size < most else most - 1
    for at in range(last, low, -1):
        distances[at] = distances[at - 1]
        ids[at] = ids[at - 1]
    distances[low] = distance
    ids[low] = node
    return low, min(size + 1, most)


@inlined
def exact_score(vectors, row, query, squared):
    """float32: the inner product, or minus the squared distance."""
    values = vectors[row]
    total = np.float32(0)
    if squared:
        for at in range(query.shape[0]):
            apart = values[at] - query[at]
            total -= apart * apart
    else:
        for at in range(query.shape[0]):
            total += values[at] * query[at]
    return total


@inlined
def rank_exactly(vectors, flat, query, squared, ids, size, out_ids, out_scores):
    """The best of `ids` by exact score, best first, as many as `out_ids` has places for; how many."""
    width = query.shape[0]
    found, most = 0, out_ids.shape[0]
    for at in range(min(size, 4)):
        for line in range(0, width, 16):
            prefetch(flat, np.int64(ids[at]) * width + line)
    for at in range(size):
        if at + 4 < size:
            for line in range(0, width, 16):
                prefetch(flat, np.int64(ids[at + 4]) * width + line)
        score = exact_score(vectors, ids[at], query, squared)
        if found == most and score <= out_scores[most - 1]:
            continue
        place = found if found < most else most - 1
        while place > 0 and out_scores[place - 1] < score:
            out_scores[place] = out_scores[place - 1]
            out_ids[place] = out_ids[place - 1]
            place -= 1
        out_scores[place] = score
        out_ids[place] = ids[at]
        found = min(found + 1, most)
    return found


@inlined
def _expand(graph, node, visited, fresh, flat_bits, row_words, wanted):
    """Neighbours seen for the first time, into `fresh`; how many. Their bit rows are on their way then."""
    count = 0
    neighbours = graph[node]
    for at in range(neighbours.shape[0]):
        other = neighbours[at]
        if other < 0:
            break
        word, mask = other >> 6, np.uint64(1) << np.uint64(other & 63)
        if visited[word] & mask == 0:
            visited[word] |= mask
            fresh[count] = other
            count += 1
            if wanted:
                prefetch(flat_bits, np.int64(other) * row_words)
    return count


_SEARCH = _I64(
    read(_F32, 2), read(types.int8, 2), read(types.uint64, 2), read(_F32, 2), read(_I32, 2),
    read(_I32, 1), read(types.int8, 2), read(types.uint8, 1), read(_F32, 2), read(_F32, 2),
    _F32, _F32, types.boolean, _I64, _I64, types.uint64[::1], _I32[:, ::1], _F32[:, ::1], _I64[::1],
)  # fmt: skip


@compiled(_SEARCH)
def search_graph(
    vectors, codes, bits, facts, graph, entries, entry_codes, allowed, queries, rotated,
    scale, deviations, squared, ef, ranked, visited, out_ids, out_scores, counts,
):  # fmt: skip
    """The best allowed rows of each query, best first: out_ids (q, k), -1 where there are no more.

    vectors (n, dim), codes (n, width), bits (n, words / 2) and facts (n, words) two views of the 1-bit rows,
    graph (n, degree) ended by -1, entries with their codes, allowed (n,) or empty for all, queries (q, dim),
    rotated (q, width), scale of the codes, how many standard `deviations` an estimate may be off, squared
    for l2, pool sizes `ef` and `ranked` (those ranked exactly), visited: a bit per node. counts grows by
    nodes expanded, seen, and measured by their codes.
    """
    width, most_neighbours = codes.shape[1], graph.shape[1]
    words = width // 32
    estimates = width >= 128
    filtered = allowed.shape[0] > 0
    flat_codes, flat_facts = codes.reshape(-1), facts.reshape(-1)
    flat_vectors, flat_graph = vectors.reshape(-1), graph.reshape(-1)
    pool, distances = np.empty(ef + 1, np.int32), np.empty(ef + 1, np.float32)
    kept, kept_distances = np.empty(ranked + 1, np.int32), np.empty(ranked + 1, np.float32)
    fresh = np.empty(most_neighbours + 1, np.int32)
    planes, rounded = np.empty((5, bits.shape[1]), np.uint64), np.empty((1, width), np.int16)
    for number in range(queries.shape[0]):
        query = rotated[number]
        unit = round_query(query, rounded) / scale
        lowest, step, total, length = bit_planes(query, planes)
        slack = deviations * length
        visited[:] = 0
        size, held = 0, 0
        for at in range(entries.shape[0]):
            node = entries[at]
            distance = -unit * np.float32(row_dot(entry_codes, at, rounded, 0))
            if squared:
                distance += facts[node, words + 2]
            if size < 2 or distance < distances[size - 1]:
                _, size = insert(pool, distances, size, 2, node, distance)
        for at in range(size):
            node = pool[at]
            visited[node >> 6] |= np.uint64(1) << np.uint64(node & 63)
            if filtered and allowed[node]:
                _, held = insert(kept, kept_distances, held, ranked, node, distances[at])
        current = 0
        while current < size:
            node = pool[current]
            # A node that has been expanded is kept as its complement.
            pool[current] = ~node
            counts[0] += 1
            count = _expand(
                graph, node, visited, fresh, flat_facts, facts.shape[1], squared or (estimates and size == ef)
            )
            counts[1] += count
            if size == ef and estimates:
                worst = distances[ef - 1]
                left = 0
                for at in range(count):
                    other = fresh[at]
                    fact = facts[other]
                    likely = planes_dot(bits, other, planes, lowest, step, total) * fact[words]
                    nearest = -likely - slack * fact[words + 1]
                    if squared:
                        nearest += fact[words + 2]
                    if nearest < worst:
                        fresh[left] = other
                        left += 1
                        prefetch_row(flat_codes, other, width)
                count = left
            else:
                for at in range(count):
                    prefetch_row(flat_codes, fresh[at], width)
            counts[2] += count
            following = current + 1
            for at in range(count):
                other = fresh[at]
                distance = -unit * np.float32(row_dot(codes, other, rounded, 0))
                if squared:
                    distance += facts[other, words + 2]
                if filtered and allowed[other] and (held < ranked or distance < kept_distances[held - 1]):
                    _, held = insert(kept, kept_distances, held, ranked, other, distance)
                if size == ef and distance >= distances[ef - 1]:
                    continue
                place, size = insert(pool, distances, size, ef, other, distance)
                following = min(following, place)
            current = following
            while current < size and pool[current] < 0:
                current += 1
            if current < size:
                for at in range(0, most_neighbours, 16):
                    prefetch(flat_graph, np.int64(pool[current]) * most_neighbours + at)
        out_ids[number, :] = -1
        out_scores[number, :] = -np.inf
        if filtered:
            rank_exactly(
                vectors, flat_vectors, queries[number], squared, kept, held,
                out_ids[number], out_scores[number],
            )  # fmt: skip
        else:
            held = min(size, ranked)
            for at in range(held):
                kept[at] = ~pool[at] if pool[at] < 0 else pool[at]
            rank_exactly(
                vectors, flat_vectors, queries[number], squared, kept, held,
                out_ids[number], out_scores[number],
            )  # fmt: skip
    return queries.shape[0]


_SCAN = _I64(
    read(_F32, 2), read(types.int8, 2), read(_F32, 2), read(_I32, 1), read(_F32, 2), read(_F32, 2),
    _F32, types.boolean, _I64, _I32[:, ::1], _F32[:, ::1],
)  # fmt: skip


@compiled(_SCAN)
def scan_nodes(
    vectors, codes, facts, nodes, queries, rotated, scale, squared, ranked, out_ids, out_scores
):  # fmt: skip
    """The best of `nodes` (m,) for each query by their codes, the `ranked` best of those exactly.

    The other arguments are `search_graph`'s.
    """
    width = codes.shape[1]
    words = width // 32
    flat_codes, flat_vectors = codes.reshape(-1), vectors.reshape(-1)
    kept, distances = np.empty(ranked + 1, np.int32), np.empty(ranked + 1, np.float32)
    rounded = np.empty((1, width), np.int16)
    for number in range(queries.shape[0]):
        unit = round_query(rotated[number], rounded) / scale
        held = 0
        for at in range(nodes.shape[0]):
            node = nodes[at]
            if at + 4 < nodes.shape[0]:
                prefetch_row(flat_codes, nodes[at + 4], width)
            distance = -unit * np.float32(row_dot(codes, node, rounded, 0))
            if squared:
                distance += facts[node, words + 2]
            if held < ranked or distance < distances[held - 1]:
                _, held = insert(kept, distances, held, ranked, node, distance)
        out_ids[number, :] = -1
        out_scores[number, :] = -np.inf
        rank_exactly(
            vectors, flat_vectors, queries[number], squared, kept, held, out_ids[number], out_scores[number]
        )
    return queries.shape[0]
