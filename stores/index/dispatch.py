"""Which index answers for each part of a view: the planner, by estimated time.

    codes     every row of a part without a graph by its codes, the best of them exactly: a few queries
    flat      every row exactly, on JAX: many queries, and everything where an accelerator holds the vectors
    matches   the rows that a filter lets through by their codes, the best of them exactly: few matches
    graph     best-first search: the rest. Where memory is short: `bits`, with the vectors on disk, or
              `blocks`, with the neighbours there as well

A filter that lets a share s through makes a search keep ef / sqrt(s) nodes, so that it still meets enough
that count; where that costs more than looking at each match, each match is looked at.
"""

import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from stores.index import flat, kernels
from stores.index.graph.index import Effort, GraphIndex, Tier
from stores.index.trace import PartTrace
from stores.segment.columns import Bools
from stores.segment.view import ROW_BITS, Float32, Int64, Part

_EF_PER_K = 3
_EF_BY_BITS = 2
# Nanoseconds on one core of a server of 2023: a row by its code out of order, a node kept by a search.
_MATCH_NS = 40.0
_DISK_MATCH_NS = 400.0
_NODE_NS = 1100.0
_FEWEST_TO_TRAVERSE = 4096
_FEW_QUERIES = 64
_MOST_BY_CODES = 256
_LEAST_CODED_DIM = 64
_RANKED_PER_K = 4
_MORE_RANKED = 32
_SURE = 6.0
"""Deviations that a code's estimate may be off before a row could be among the best and not be ranked."""
_MOST_EF = 8192


def search(
    queries: Float32,
    parts: Sequence[Part],
    allowed: Sequence[Bools],
    metric: str,
    k: int,
    *,
    ef: int | None = None,
    exact: bool = False,
    dims: int | None = None,
    memory: int | None = None,
    widen: float = 1.0,
    trace: list[PartTrace] | None = None,
) -> tuple[Float32, Int64]:
    """The k best living, allowed rows for each query, over all parts.

    queries (q, dim); allowed[i] bool (rows of parts[i],), already without the dead. `ef` is how many near
    rows a graph search keeps (None: what was measured to be enough when it was built, times `widen`); `exact`
    looks at every row; `dims` has flat parts compare the first coordinates alone; `memory`, the bytes that
    graphs may take, has larger ones searched on disk. Returns scores (q, m) and places (q, m), best first,
    m = min(k, allowed rows); a place is `segment.view.pack`'s.
    """
    matching = [_matches(part, mask) for part, mask in zip(parts, allowed, strict=True)]
    wanted = min(k, sum(matching))
    if wanted == 0 or not len(queries):
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    scanned, answers = [], []
    by_codes = _codes_tell(queries, metric, wanted, exact, dims)
    tier = _tier(parts, memory)
    for part, mask, matches in zip(parts, allowed, matching, strict=True):
        index = None if exact or on_accelerator() else part.rows.graph()
        if matches == 0:
            continue
        if index is None:
            found = _scan_codes(queries, part, mask, matches, metric, wanted, trace) if by_codes else None
            if found is None:
                scanned.append((part, mask, matches))
            else:
                answers.append(found)
        else:
            answers.append(_search_graph(queries, part, index, mask, matches, wanted, ef, tier, widen, trace))
    if scanned:
        answers.append(_scan(queries, scanned, metric, wanted, exact, dims, trace))
    return _best(answers, wanted)


def _tier(parts: Sequence[Part], memory: int | None) -> Tier:
    """Where the graphs of all parts are searched: the fastest way whose share fits into `memory`."""
    if memory is None:
        return "graph"
    graphs = [index for part in parts if (index := part.rows.graph()) is not None]
    fitting: list[Tier] = ["graph", "bits"]
    for tier in fitting:
        if sum(index.nodes * index.node_bytes(tier) for index in graphs) <= memory:
            return tier
    return "blocks" if all(index.disk.blocks is not None for index in graphs) else "bits"


def on_accelerator() -> bool:
    """Whether JAX computes on something else than processors, which then holds the vectors."""
    return jax.default_backend() != "cpu"


def _matches(part: Part, mask: Bools) -> int:
    return part.live_count if mask is part.alive else int(np.count_nonzero(mask))


def _search_graph(
    queries: Float32,
    part: Part,
    index: GraphIndex,
    mask: Bools,
    matches: int,
    k: int,
    ef: int | None,
    memory_tier: Tier,
    widen: float,
    trace: list[PartTrace] | None,
) -> tuple[Float32, Int64]:
    started = time.perf_counter()
    share = matches / part.rows.count
    usual = index.ef * widen * (1 if memory_tier == "graph" else _EF_BY_BITS)
    width = max(ef, k) if ef else max(usual, _EF_PER_K * k)
    pool = min(math.ceil(width / math.sqrt(share)), _MOST_EF)
    by_match = matches * (_MATCH_NS if memory_tier == "graph" else _DISK_MATCH_NS)
    by_graph = pool * _NODE_NS
    counted = None if matches == part.rows.count else mask
    few = counted is not None and (matches < _FEWEST_TO_TRAVERSE or by_match < by_graph)
    if few or 2 * k > min(matches, _MOST_EF):
        tier, reason = "matches", f"{matches} of {part.rows.count} rows match, k {k}"
        scores, rows, effort = index.scan(queries, counted, k)
    else:
        tier, reason = memory_tier, f"{matches} of {part.rows.count} rows match, ef {pool}"
        scores, rows, effort = index.search(queries, counted, k, pool, memory_tier)
        if (rows < 0).any():
            # The graph led past what a filter lets through; nobody gets fewer rows than there are.
            tier, reason = "matches", reason + " found too few"
            scores, rows, effort = index.scan(queries, counted, k)
    if trace is not None:
        trace.append(_traced(part, tier, reason, matches, effort, time.perf_counter() - started))
    places = np.where(rows < 0, -1, rows | np.int64(part.rows.serial << ROW_BITS))
    return scores, places


def _traced(part: Part, tier: str, reason: str, matches: int, effort: Effort, seconds: float) -> PartTrace:
    return PartTrace(
        part.rows.serial,
        tier,  # type: ignore[arg-type]
        reason,
        part.rows.count,
        matches,
        effort.expanded,
        effort.measured,
        effort.ranked,
        1e3 * seconds,
    )


def _codes_tell(queries: Float32, metric: str, k: int, exact: bool, dims: int | None) -> bool:
    """Whether rows without a graph are looked at by their codes: that is faster for a few queries, and tells
    enough where there are so many dimensions that the codes' errors cancel out."""
    usual = not exact and dims is None and metric != "hamming" and not on_accelerator()
    few = len(queries) <= _FEW_QUERIES and k <= _MOST_BY_CODES
    return usual and few and queries.shape[1] >= _LEAST_CODED_DIM and kernels.native()


def _scan_codes(
    queries: Float32,
    part: Part,
    mask: Bools,
    matches: int,
    metric: str,
    k: int,
    trace: list[PartTrace] | None,
) -> tuple[Float32, Int64] | None:
    """None where the codes are too coarse to be sure of the best, as of rows far from the origin."""
    started = time.perf_counter()
    steps, most = part.rows.steps(), min(k, matches)
    rows, scores = np.empty((len(queries), most), np.int32), np.empty((len(queries), most), np.float32)
    ranked = min(matches, _RANKED_PER_K * most + _MORE_RANKED)
    everything = mask is part.alive and matches == part.rows.count
    allowed = np.zeros(0, np.uint8) if everything else mask.view(np.uint8)
    padded = np.zeros((len(queries), steps.codes.shape[1]), np.float32)
    padded[:, : queries.shape[1]] = queries
    edges = np.empty(len(queries), np.float32)
    kernels.searching().scan_rows(
        *(part.rows.vectors, steps.codes, steps.steps, steps.halves, part.rows.count, allowed),
        *(queries, padded, metric == "l2", ranked, rows, scores, edges),
    )
    squares = np.einsum("qd,qd->q", queries, queries)
    worst = (-scores[:, -1] - squares) / 2 if metric == "l2" else -scores[:, -1]
    # Rounding is off by up to half a step, evenly: its deviation is a step over the root of 12.
    slack = _SURE * np.sqrt(squares / 12) * steps.steps[: part.rows.count].max()
    if ranked < matches and not (worst <= edges - slack).all():
        return None
    if trace is not None:
        effort = Effort(0, 0, matches * len(queries), ranked * len(queries))
        spent = time.perf_counter() - started
        trace.append(_traced(part, "codes", "no graph yet", matches, effort, spent))
    return scores, rows.astype(np.int64) | np.int64(part.rows.serial << ROW_BITS)


def _scan(
    queries: Float32,
    scanned: Sequence[tuple[Part, Bools, int]],
    metric: str,
    k: int,
    exact: bool,
    dims: int | None,
    trace: list[PartTrace] | None,
) -> tuple[Float32, Int64]:
    started = time.perf_counter()
    parts, masks, _ = zip(*scanned, strict=True)
    found = flat.search(queries, parts, masks, metric, k, dims)
    if trace is not None:
        reason = "asked for" if exact else "held by the accelerator" if on_accelerator() else "no graph yet"
        spent = time.perf_counter() - started
        total = sum(part.rows.count for part in parts)
        for part, _, matches in scanned:
            # They are scanned together: the time is shared out by rows.
            effort, own = Effort(0, 0, 0, matches * len(queries)), spent * part.rows.count / total
            trace.append(_traced(part, "flat", reason, matches, effort, own))
    return found


def _best(answers: Sequence[tuple[Float32, Int64]], k: int) -> tuple[Float32, Int64]:
    """The k best of several parts' answers, best first; equal ones in the order of the parts."""
    if len(answers) == 1 and answers[0][0].shape[1] == k:
        return answers[0]
    scores = np.concatenate([scores for scores, _ in answers], axis=1)
    places = np.concatenate([places for _, places in answers], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
