"""x W^T with weights that stay int8 or int4 in memory: the products of a decode step.

Groups of 32 along the inner axis have one scale (and for int4 one minimum), as in GGUF's Q8_0 and Q4_1
with the parts in arrays of their own: the layout of `engine.ops.quant.QTensor`, read as it lies. A tile is
a few weight rows by one group; 32 running sums a row are joined once at the end, so that a processor's
vector units never sum across lanes inside the loop.
"""

from collections.abc import Callable

from dsl.ir.types import NIBBLE_GROUP
from dsl.lang.arguments import Output, like
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, Tile, tile
from dsl.lang.values import Expr, cdiv, loop, pid, zeros

Weights = Callable[[Tile, Tile, Tile], Expr]


def _grid(x: Ref, w: Ref, BM: int, BX: int) -> tuple[int, int]:
    return cdiv(w.shape[0], BM), cdiv(x.shape[0], BX)


def _out(x: Ref, w: Ref) -> Output:
    return like(x, shape=(x.shape[0], w.shape[0]), dtype="f32")


EXPANDED = 2**20
"""Weights that the XLA lowering expands at a time: 4 MiB in f32, which a processor's cache holds."""


def expanded_rows(w: Ref) -> int:
    """A block that divides the rows of weights, where there is such: others would be padded in a copy."""
    out, most = w.shape[0], max(1, EXPANDED // w.shape[1])
    fitting = (n for n in range(min(out, most), most // 2, -1) if out % n == 0)
    return next(fitting, min(out, most))


def _for_cpu(x: Ref) -> dict[str, int]:
    """Running sums of 128 to 256 numbers, in registers; rows of x in even blocks of up to 4."""
    rows = cdiv(x.shape[0], cdiv(x.shape[0], 4))
    return {"BM": 4 if rows == 1 else 2, "BX": rows}


TUNE: Tuning = {"xla": lambda w: {"BM": expanded_rows(w), "BX": 1}, "cpu": _for_cpu}


@kernel(grid=_grid, out=_out, tune=TUNE)
def int8_linear(x: Ref, w: Ref, scale: Ref, o: Ref, *, BM: int = 8, BX: int = 1) -> None:
    """o = x W^T for W[n, k] = scale[n, k // 32] * w[n, k].

    x: (rows, in) f32, f16 or bf16; w: (out, in) i8, in a multiple of 32; scale: (out, in / 32) f32 ->
    o: (rows, out) f32. Differentiable in x and scale.
    """

    def weights(rows: Tile, group: Tile, one: Tile) -> Expr:
        return w[rows, group].f32 * scale[rows, one]

    _product(x, w, o, weights, BM, BX)


@kernel(grid=_grid, out=_out, tune=TUNE)
def int4_linear(x: Ref, w: Ref, scale: Ref, minimum: Ref, o: Ref, *, BM: int = 8, BX: int = 1) -> None:
    """o = x W^T for W[n, k] = scale[n, k // 32] * w[n, k] + minimum[n, k // 32].

    x: (rows, in) f32, f16 or bf16; w: Packed u4 (out, in), in a multiple of 32; scale, minimum:
    (out, in / 32) f32 -> o: (rows, out) f32. Differentiable in x, scale and minimum.
    """

    def weights(rows: Tile, group: Tile, one: Tile) -> Expr:
        return w[rows, group].f32 * scale[rows, one] + minimum[rows, one]

    _product(x, w, o, weights, BM, BX)


def _product(x: Ref, w: Ref, o: Ref, weights: Weights, BM: int, BX: int) -> None:
    rows = tile(pid(0) * BM, BM)
    first = pid(1) * BX

    def step(g: Expr, totals: tuple[Expr, ...]) -> tuple[Expr, ...]:
        group, one = tile(g * NIBBLE_GROUP, NIBBLE_GROUP), tile(g, 1)
        wide = weights(rows, group, one)
        return tuple(total + wide * x[first + i, group].f32 for i, total in enumerate(totals))

    start = tuple(zeros((BM, NIBBLE_GROUP)) for _ in range(BX))
    for i, total in enumerate(loop(0, w.shape[1] // NIBBLE_GROUP, step, start)):
        o.column[first + i, rows] = total.sum(1)
