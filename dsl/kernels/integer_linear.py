"""x W^T with int8 or int4 weights and activations rounded to int8: the fast products of a decode step.

Within a group of 32 the sum is of integers, exact; groups are scaled and added in f32. Activations come
from `round8`; the weights are as in `quant_linear`. The scheme of llama.cpp's Q8_0 and Q4_1 products.
"""

from dsl.ir.types import NIBBLE_GROUP
from dsl.lang.arguments import Output, like
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, Tile, tile
from dsl.lang.values import Expr, cdiv, loop, pid, zeros


def _grid(x: Ref, w: Ref, BM: int, BX: int) -> tuple[int, int]:
    return cdiv(w.shape[0], BM), cdiv(x.shape[0], BX)


def _out(x: Ref, w: Ref) -> Output:
    return like(x, shape=(x.shape[0], w.shape[0]), dtype="f32")


def _for_cpu(x: Ref) -> dict[str, int]:
    """Up to 16 vectors of running sums; x in even blocks, so that no block of its rows is guarded."""
    return {"BM": 4, "BX": max(n for n in range(1, 5) if x.shape[0] % n == 0)}


TUNE: Tuning = {"xla": lambda x, w: {"BM": w.shape[0], "BX": x.shape[0]}, "cpu": _for_cpu}


@kernel(grid=_grid, out=_out, tune=TUNE)
def int8_int8_linear(x: Ref, step: Ref, w: Ref, scale: Ref, o: Ref, *, BM: int = 8, BX: int = 1) -> None:
    """o = X W^T for W[n, k] = scale[n, k // 32] * w[n, k] and X[m, k] = step[m, k // 32] * x[m, k].

    x: (rows, in) i8 and step: (rows, in / 32) f32, as from `round_to_int8`; w: (out, in) i8, in a multiple
    of 32; scale: (out, in / 32) f32 -> o: (rows, out) f32. On `cpu` a row's bits do not depend on how many
    rows there are. Differentiable in step and scale.
    """
    rows, first = tile(pid(0) * BM, BM), pid(1) * BX
    for i, total in enumerate(_totals(x, step, w, scale, rows, first, BX)):
        o.column[first + i, rows] = total


@kernel(grid=_grid, out=_out, tune=TUNE)
def int4_int8_linear(
    x: Ref,
    step: Ref,
    sums: Ref,
    w: Ref,
    scale: Ref,
    minimum: Ref,
    o: Ref,
    *,
    BM: int = 8,
    BX: int = 1,
) -> None:
    """As `int8_int8_linear`, for W[n, k] = scale[n, k // 32] * w[n, k] + minimum[n, k // 32].

    x, step, sums: as from `round_to_int8_and_sum`; w: Packed u4 (out, in), in a multiple of 32; scale,
    minimum: (out, in / 32) f32 -> o: (rows, out) f32. Differentiable in step, sums, scale and minimum.
    """
    rows, first = tile(pid(0) * BM, BM), pid(1) * BX
    for i, total in enumerate(_totals(x, step, w, scale, rows, first, BX)):
        o.column[first + i, rows] = total + (minimum[rows, :] * sums[first + i, :]).sum(1)


def _totals(x: Ref, step: Ref, w: Ref, scale: Ref, rows: Tile, first: Expr, count: int) -> tuple[Expr, ...]:
    """Columns (rows, 1) for `count` rows of x from `first`."""

    def add(g: Expr, totals: tuple[Expr, ...]) -> tuple[Expr, ...]:
        group, one = tile(g * NIBBLE_GROUP, NIBBLE_GROUP), tile(g, 1)
        return tuple(
            total
            + (w[rows, group] * x[first + i, group]).sum(1).f32 * (scale[rows, one] * step[first + i, g])
            for i, total in enumerate(totals)
        )

    found: tuple[Expr, ...] = loop(
        0, w.shape[1] // NIBBLE_GROUP, add, tuple(zeros((rows.size, 1)) for _ in range(count))
    )
    return found
