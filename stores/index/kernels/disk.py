"""Searching with one bit a dimension in memory and the vectors on disk: numba, without Python's lock.

`search_bits` has the neighbours in memory too: it searches by estimates alone, then asks the disk for all
vectors that are to be ranked at once. `search_blocks` finds a node's vector and neighbours in one page of a
file (Subramanya et al., "DiskANN", NeurIPS 2019) and reads a few pages at a time. Both ask by
`posix_fadvise(WILLNEED)`, which starts reads without waiting for any: no threads, no asynchronous I/O.
"""

import numpy as np
from numba import types

from stores.index.kernels.intrinsics import prefetch
from stores.index.kernels.jit import compiled, inlined
from stores.index.kernels.traverse import bit_planes, insert, planes_dot, rank_exactly, read

PAGE = 4096
_F32, _I32, _I64 = types.float32, types.int32, types.int64
_WILLNEED = 3
# Called by name, so that compiled kernels can be cached.
_advise = types.ExternalFunction("posix_fadvise", _I32(_I32, _I64, _I64, _I32))


@inlined
def _ask(descriptor, start, length):
    """Starts reading the pages of a range of the file; nothing for descriptor -1."""
    if descriptor >= 0:
        first = start // PAGE * PAGE
        _advise(descriptor, first, start + length - first, np.int32(_WILLNEED))


@inlined
def _estimate(bits, facts, node, planes, lowest, step, total, words, squared):
    """The distance by the node's bits."""
    fact = facts[node]
    distance = -planes_dot(bits, node, planes, lowest, step, total) * fact[words]
    if squared:
        distance += fact[words + 2]
    return distance


@inlined
def _see(other, visited, fresh, count, flat_facts, row_words):
    """Puts a node that has not been seen into `fresh`; how many there are. Its bits are on their way then."""
    word, mask = other >> 6, np.uint64(1) << np.uint64(other & 63)
    if visited[word] & mask == 0:
        visited[word] |= mask
        fresh[count] = other
        count += 1
        prefetch(flat_facts, np.int64(other) * row_words)
    return count


@compiled(
    _I64(
        read(_F32, 2), read(types.uint64, 2), read(_F32, 2), read(_I32, 2), read(_I32, 1),
        read(types.uint8, 1), read(_F32, 2), read(_F32, 2), types.boolean, _I32, _I64, _I64,
        types.uint64[::1], _I32[:, ::1], _F32[:, ::1], _I64[::1],
    )
)  # fmt: skip
def search_bits(
    vectors, bits, facts, graph, entries, allowed, queries, rotated, squared, descriptor, ef, ranked,
    visited, out_ids, out_scores, counts,
):  # fmt: skip
    """The best allowed rows of each query, best first: out_ids (q, k), -1 where there are no more.

    vectors (n, dim) mapped from the file behind `descriptor`; the other arguments are
    `traverse.search_graph`'s.
    """
    width, degree = rotated.shape[1], graph.shape[1]
    words, dim = width // 32, vectors.shape[1]
    filtered = allowed.shape[0] > 0
    flat_facts, flat_vectors = facts.reshape(-1), vectors.reshape(-1)
    pool, distances = np.empty(ef + 1, np.int32), np.empty(ef + 1, np.float32)
    kept, kept_distances = np.empty(ranked + 1, np.int32), np.empty(ranked + 1, np.float32)
    fresh = np.empty(max(degree, entries.shape[0]) + 1, np.int32)
    planes = np.empty((5, bits.shape[1]), np.uint64)
    for number in range(queries.shape[0]):
        lowest, step, total, _ = bit_planes(rotated[number], planes)
        visited[:] = 0
        size, held, current, count = 0, 0, 0, 0
        for at in range(entries.shape[0]):
            count = _see(entries[at], visited, fresh, count, flat_facts, facts.shape[1])
        while True:
            counts[2] += count
            following = current + 1
            for at in range(count):
                other = fresh[at]
                distance = _estimate(bits, facts, other, planes, lowest, step, total, words, squared)
                passes = not filtered or allowed[other]
                if passes and (held < ranked or distance < kept_distances[held - 1]):
                    _, held = insert(kept, kept_distances, held, ranked, other, distance)
                if size < ef or distance < distances[ef - 1]:
                    place, size = insert(pool, distances, size, ef, other, distance)
                    following = min(following, place)
            current = min(following, size)
            while current < size and pool[current] < 0:
                current += 1
            if current >= size:
                break
            node = pool[current]
            # A node that has been expanded is kept as its complement.
            pool[current] = ~node
            counts[0] += 1
            count = 0
            for at in range(degree):
                if graph[node, at] < 0:
                    break
                count = _see(graph[node, at], visited, fresh, count, flat_facts, facts.shape[1])
            counts[1] += count
        for at in range(held):
            _ask(descriptor, np.int64(kept[at]) * dim * 4, dim * 4)
        out_ids[number, :] = -1
        out_scores[number, :] = -np.inf
        rank_exactly(
            vectors, flat_vectors, queries[number], squared, kept, held, out_ids[number], out_scores[number]
        )
    return queries.shape[0]


@compiled(
    _I64(
        read(_F32, 2), read(_I32, 2), _I64, _I64, read(types.uint64, 2), read(_F32, 2),
        read(_I32, 1), read(types.uint8, 1), read(_F32, 2), read(_F32, 2), types.boolean, _I32,
        _I64, _I64, types.uint64[::1], _I32[:, ::1], _F32[:, ::1], _I64[::1],
    )
)  # fmt: skip
def search_blocks(
    blocks, links, degree, per_page, bits, facts, entries, allowed, queries, rotated, squared, descriptor,
    ef, beam, visited, out_ids, out_scores, counts,
):  # fmt: skip
    """As `search_bits`, with vectors and neighbours in `blocks` (pages, words), of which `links` is the
    int32 view: `per_page` records of a vector and `degree` neighbours. `beam` pages are read at a time.
    """
    width, dim = rotated.shape[1], queries.shape[1]
    words, most = width // 32, out_ids.shape[1]
    record, page_bytes = dim + degree, np.int64(blocks.shape[1]) * 4
    filtered = allowed.shape[0] > 0
    flat_facts = facts.reshape(-1)
    pool, distances = np.empty(ef + 1, np.int32), np.empty(ef + 1, np.float32)
    fresh = np.empty(max(beam * degree, entries.shape[0]) + 1, np.int32)
    todo, planes = np.empty(beam, np.int32), np.empty((5, bits.shape[1]), np.uint64)
    for number in range(queries.shape[0]):
        query, ids, scores = queries[number], out_ids[number], out_scores[number]
        lowest, step, total, _ = bit_planes(rotated[number], planes)
        visited[:] = 0
        ids[:] = -1
        scores[:] = -np.inf
        size, found, count = 0, 0, 0
        for at in range(entries.shape[0]):
            count = _see(entries[at], visited, fresh, count, flat_facts, facts.shape[1])
        while True:
            counts[2] += count
            for at in range(count):
                other = fresh[at]
                distance = _estimate(bits, facts, other, planes, lowest, step, total, words, squared)
                if size < ef or distance < distances[ef - 1]:
                    _, size = insert(pool, distances, size, ef, other, distance)
            waiting = 0
            for at in range(size):
                if waiting == beam:
                    break
                if pool[at] >= 0:
                    todo[waiting] = pool[at]
                    pool[at] = ~pool[at]
                    waiting += 1
            if waiting == 0:
                break
            for at in range(waiting):
                _ask(descriptor, np.int64(todo[at] // per_page) * page_bytes, page_bytes)
            count = 0
            for at in range(waiting):
                node = todo[at]
                page, start = node // per_page, node % per_page * record
                row = blocks[page, start : start + dim]
                score = np.float32(0)
                if squared:
                    for axis in range(dim):
                        apart = row[axis] - query[axis]
                        score -= apart * apart
                else:
                    for axis in range(dim):
                        score += row[axis] * query[axis]
                if (not filtered or allowed[node]) and (found < most or score > scores[most - 1]):
                    place = found if found < most else most - 1
                    while place > 0 and scores[place - 1] < score:
                        scores[place], ids[place] = scores[place - 1], ids[place - 1]
                        place -= 1
                    scores[place], ids[place] = score, node
                    found = min(found + 1, most)
                near = links[page, start + dim : start + record]
                for place in range(degree):
                    if near[place] < 0:
                        break
                    count = _see(near[place], visited, fresh, count, flat_facts, facts.shape[1])
            counts[0] += waiting
            counts[1] += count
    return queries.shape[0]
