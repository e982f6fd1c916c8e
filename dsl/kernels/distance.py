"""Scores of vectors against queries, higher is better, and the best k of them in the same kernel."""

from collections.abc import Callable

from dsl.lang.arguments import Output, like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, Tile, tile
from dsl.lang.values import (
    Expr,
    cdiv,
    dot,
    full,
    loop,
    maximum,
    minimum,
    pid,
    popcount,
    rsqrt,
    where,
    zeros,
)

METRICS = ("dot", "l2", "cosine")
LOWEST, TAKEN = -3e38, -3.4e38
"""Scores of an empty place and of one already given out."""
LARGEST_ID = 2**31 - 1
SCORES_AT_ONCE = 2**20
"""How many scores the XLA lowering of `nearest` forms at a time."""


def _scores(queries: Ref, vectors: Ref, rows: Tile, columns: Tile, metric: str) -> Expr:
    """(rows, columns) scores by a metric of METRICS."""
    if metric not in METRICS:
        raise KernelError(f"there is no metric {metric!r}; use one of {', '.join(METRICS)}, or hamming")
    a, b = queries[rows, :], vectors[columns, :]
    products = dot(a, b, transpose_b=True)
    if metric == "dot":
        return products
    a, b = a.f32, b.f32
    # Row vectors of the other side's squares: a dot with ones, since a tile is never transposed.
    squares = dot(full((1, b.shape[1]), 1.0), b * b, transpose_b=True)
    own = (a * a).sum(1)
    if metric == "l2":
        return minimum(products * 2.0 - own - squares, 0.0)
    return products * _inverse_root(own) * _inverse_root(squares)


def _inverse_root(squares: Expr) -> Expr:
    """1 / length; 0 for a vector of zeros."""
    return where(squares == 0.0, 0.0, rsqrt(where(squares == 0.0, 1.0, squares)))


@kernel(
    grid=lambda queries, vectors, BM, BN: (cdiv(queries.shape[0], BM), cdiv(vectors.shape[0], BN)),
    out=lambda queries, vectors: like(queries, shape=(queries.shape[0], vectors.shape[0]), dtype="f32"),
    tune={"xla": lambda queries, vectors: {"BM": queries.shape[0], "BN": vectors.shape[0]}},
    search={"BM": (4, 32), "BN": (16, 64)},
)
def distance(queries: Ref, vectors: Ref, o: Ref, *, BM: int = 16, BN: int = 32, metric: str = "l2") -> None:
    """o[i, j] = score of vector j for query i: inner product, negative squared distance, or cosine.

    queries: (q, dim), vectors: (n, dim), both f32, f16 or bf16 -> o: (q, n) f32. `metric`: "dot"; "l2",
    never above 0, by |a|^2 - 2 a.b + |b|^2, so near pairs far from the origin lose digits; "cosine",
    0 for a vector of zeros. Differentiable.
    """
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)
    o[rows, columns] = _scores(queries, vectors, rows, columns, metric)


@kernel(
    grid=lambda queries, vectors, BM, BN: (cdiv(queries.shape[0], BM), cdiv(vectors.shape[0], BN)),
    out=lambda queries, vectors: like(queries, shape=(queries.shape[0], vectors.shape[0]), dtype="i32"),
    tune={"xla": lambda queries, vectors: {"BM": queries.shape[0], "BN": vectors.shape[0]}},
    search={"BM": (4, 32), "BN": (16, 64)},
)
def hamming(queries: Ref, vectors: Ref, o: Ref, *, BM: int = 16, BN: int = 32) -> None:
    """o[i, j] = minus the number of bits in which query i and vector j differ.

    queries: (q, words), vectors: (n, words), packed bits as u8, i8 or i32, both alike -> o: (q, n) i32.
    """
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)

    def step(word: Expr, total: Expr) -> Expr:
        return total - popcount(queries.column[rows, word] ^ vectors[columns, word])

    o[rows, columns] = loop(0, queries.shape[1], step, zeros((BM, BN), "i32"))


def _best(queries: Ref, k: int) -> list[Output]:
    shape = (queries.shape[0], k)
    return [like(queries, shape=shape, dtype="f32"), like(queries, shape=shape, dtype="i32")]


def _nearest_for_xla(queries: Ref, vectors: Ref) -> dict[str, int]:
    count = queries.shape[0]
    return {"BM": count, "BN": min(vectors.shape[0], max(1024, SCORES_AT_ONCE // count))}


@kernel(
    grid=lambda queries, BM: cdiv(queries.shape[0], BM),
    out=_best,
    tune={"xla": _nearest_for_xla},
)
def nearest(
    queries: Ref,
    vectors: Ref,
    scores: Ref,
    ids: Ref,
    *,
    k: int = 10,
    BM: int = 8,
    BN: int = 64,
    metric: str = "l2",
) -> None:
    """The k best vectors of each query by `distance`, without the (q, n) scores in memory.

    queries: (q, dim), vectors: (n, dim), f32, f16 or bf16 -> scores: (q, k) f32 from best to worst, ids:
    (q, k) i32; equal scores in order of id; where n < k, the rest has id -1 and score -3e38. A running
    list of k takes in a chunk of BN scores at a time, by k rounds of "best of the chunk against worst of
    the list". Not differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    numbers = tile(0, k).cols()
    rounds = min(k, BN)

    def chunk(j: Expr, carry: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        columns = tile(j * BN, BN)
        found = _scores(queries, vectors, rows, columns, metric)
        found = where(columns.cols() < vectors.shape[0], found, LOWEST)
        step = _insert_best(columns.cols())
        _, kept, names = loop(0, rounds, step, (found, *carry))
        return kept, names

    start = (full((BM, k), LOWEST), zeros((BM, k), "i32") - 1 - numbers)
    kept, names = loop(0, cdiv(vectors.shape[0], BN), chunk, start)

    def give(j: Expr, left: Expr) -> Expr:
        best = left.max(1)
        name = where(left == best, names, LARGEST_ID).min(1)
        scores.column[rows, j] = best
        ids.column[rows, j] = maximum(name, -1)
        return where(names == name, TAKEN, left)

    loop(0, k, give, kept)


def _insert_best(columns: Expr) -> Callable[[Expr, tuple[Expr, Expr, Expr]], tuple[Expr, Expr, Expr]]:
    """One round: the best score of the chunk replaces the worst of the list, if it is better."""

    def step(_: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        found, kept, names = carry
        best, worst = found.max(1), kept.min(1)
        place = where(found == best, columns, LARGEST_ID).min(1)
        # Of equal scores the one with the greatest id goes; empty places have distinct negative ids.
        leaving = where(kept == worst, names, -LARGEST_ID).max(1)
        enters = (names == leaving) & (best > worst)
        kept, names = where(enters, best, kept), where(enters, place, names)
        return where(columns == place, TAKEN, found), kept, names

    return step
