"""Choosing a node's neighbours: numba. Its twin is `graph.prune`.

Robust prune (Subramanya et al., "DiskANN: Fast Accurate Billion-point Nearest Neighbor Search on a Single
Node", NeurIPS 2019): the nearest candidate is taken, and hides those that are `alpha` times nearer to it
than to the node; then the nearest that is left. Done at alpha 1 first and relaxed until the row is full.
"""

import numpy as np
from numba import types

from stores.index.kernels.intrinsics import row_dot
from stores.index.kernels.jit import compiled, inlined
from stores.index.kernels.traverse import insert

_I8, _I32, _I64, _F32 = types.int8, types.int32, types.int64, types.float32
_CODES = types.Array(_I8, 2, "C", readonly=True)
_SCORES = types.Array(_F32, 2, "C", readonly=True)
_SQUARES = types.Array(_F32, 1, "C", readonly=True)
_TAKEN, _HIDDEN = np.float32(-1), np.float32(1e30)
_RELAXED = np.float32(1.2)


@inlined
def _apart(codes, squares, first, second):
    """The squared distance between two rows of codes."""
    return squares[first] + squares[second] - np.float32(2) * np.float32(row_dot(codes, first, codes, second))


@inlined
def choose(codes, squares, node, ids, distances, count, most, alpha, hidden, out):
    """Neighbours of `node` among candidates sorted by distance, into `out`; how many."""
    hidden[:count] = 0
    chosen = 0
    limit = np.float32(1)
    while True:
        for at in range(count):
            if chosen >= most:
                return chosen
            if hidden[at] > limit or hidden[at] == _TAKEN or ids[at] == node:
                continue
            candidate = ids[at]
            out[chosen] = candidate
            chosen += 1
            hidden[at] = _TAKEN
            for later in range(at + 1, count):
                if hidden[later] == _TAKEN or hidden[later] > alpha:
                    continue
                between = _apart(codes, squares, candidate, ids[later])
                ratio = distances[later] / between if between > 0 else _HIDDEN
                hidden[later] = max(hidden[later], ratio)
        if limit >= alpha:
            return chosen
        limit = min(alpha, limit * _RELAXED)


@compiled(_I64(_CODES, _SQUARES, _I32[:, ::1], _I32[::1], _F32, types.boolean, _I64, _I64, _I32[:, ::1]))
def prune_rows(codes, squares, candidates, counts, alpha, few_stay, start, stop, graph):
    """Rows [start, stop) of graph (n, degree), ended by -1, from candidates (n, most) and their counts.

    few_stay: candidates that all fit are kept unpruned.
    """
    most = candidates.shape[1]
    distances, hidden = np.empty(most, np.float32), np.empty(most, np.float32)
    ids, out = np.empty(most, np.int32), np.empty(graph.shape[1], np.int32)
    for node in range(start, stop):
        count = counts[node]
        if few_stay and count <= graph.shape[1]:
            graph[node, :count] = candidates[node, :count]
            graph[node, count:] = -1
            continue
        for at in range(count):
            distances[at] = _apart(codes, squares, node, candidates[node, at])
        order = np.argsort(distances[:count], kind="mergesort")
        sorted_distances = distances[:count][order]
        for at in range(count):
            ids[at] = candidates[node, order[at]]
        chosen = choose(
            codes, squares, node, ids, sorted_distances, count, graph.shape[1], alpha, hidden, out
        )
        graph[node, :chosen] = out[:chosen]
        graph[node, chosen:] = -1
    return stop - start


@compiled(_I64(_I32[:, ::1], _I32[:, ::1], _I32[::1]))
def add_reverse(graph, candidates, counts):
    """candidates (n, most): each node's neighbours, then nodes it is a neighbour of, as many as fit."""
    nodes, degree = graph.shape
    most = candidates.shape[1]
    for node in range(nodes):
        count = 0
        for at in range(degree):
            if graph[node, at] < 0:
                break
            candidates[node, count] = graph[node, at]
            count += 1
        counts[node] = count
    for node in range(nodes):
        for at in range(degree):
            other = graph[node, at]
            if other < 0:
                break
            known = counts[other] >= most
            for place in range(degree):
                if known or graph[other, place] < 0:
                    break
                known = graph[other, place] == node
            if not known:
                candidates[other, counts[other]] = node
                counts[other] += 1
    return nodes


@compiled(_I64(_I32[::1], _SCORES, _I64, _I32[:, ::1], _F32[:, ::1], _I32[::1]))
def merge_leaf(rows, scores, near, candidates, kept_scores, counts):
    """Adds the `near` best of its leaf to each row's bounded list, best first and without repeats.

    rows (m,) of the leaf; scores (at least m, at least m) between them, -inf with itself.
    """
    most = candidates.shape[1]
    places, best = np.empty(near + 1, np.int32), np.empty(near + 1, np.float32)
    for place in range(rows.shape[0]):
        node, line, size = rows[place], scores[place], 0
        full = counts[node] == most
        least = kept_scores[node, most - 1] if full else np.float32(-np.inf)
        for at in range(rows.shape[0]):
            score = -line[at]
            if -score > least:
                _, size = insert(places, best, size, near, np.int32(at), score)
                if size == near:
                    least = max(least, -best[near - 1])
        for at in range(size):
            other, score, count = rows[places[at]], -best[at], counts[node]
            if count == most and score <= kept_scores[node, most - 1]:
                break
            known = False
            for seen in range(count):
                if candidates[node, seen] == other:
                    known = True
                    break
            if known:
                continue
            slot = min(count, most - 1)
            while slot > 0 and kept_scores[node, slot - 1] < score:
                kept_scores[node, slot] = kept_scores[node, slot - 1]
                candidates[node, slot] = candidates[node, slot - 1]
                slot -= 1
            kept_scores[node, slot] = score
            candidates[node, slot] = other
            counts[node] = min(count + 1, most)
    return rows.shape[0]
