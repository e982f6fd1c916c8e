"""x W^T with int8 or int4 weights and activations rounded to 16 bits: the products of a decode step.

Within a group of 32 the sum is of integers, exact; groups are scaled and added in f32. llama.cpp rounds
activations to 8 bits; 16 cost nothing where weights come from memory, and lose nothing that float32 keeps.
Activations come from `round16`; the weights are as in `quant_linear`.
"""

from dsl.ir.types import NIBBLE_GROUP
from dsl.lang.arguments import Output, like
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, Tile, tile
from dsl.lang.values import Expr, cdiv, loop, pid, zeros


def _grid(high: Ref, w: Ref, BM: int, BX: int) -> tuple[int, int]:
    return cdiv(w.shape[0], BM), cdiv(high.shape[0], BX)


def _out(high: Ref, w: Ref) -> Output:
    return like(high, shape=(high.shape[0], w.shape[0]), dtype="f32")


def _for_cpu(high: Ref) -> dict[str, int]:
    """What `dsl.lower.host.turned` takes; rows in even blocks, so that no row of a block is guarded."""
    return {"BM": 16, "BX": max(n for n in range(1, 9) if high.shape[0] % n == 0)}


TUNE: Tuning = {"xla": lambda high, w: {"BM": w.shape[0], "BX": 1}, "cpu": _for_cpu}


@kernel(grid=_grid, out=_out, tune=TUNE)
def int8_int16_linear(
    high: Ref, low: Ref, step: Ref, w: Ref, scale: Ref, o: Ref, *, BM: int = 8, BX: int = 1
) -> None:
    """o = X W^T for W[n, k] = scale[n, k // 32] * w[n, k], X[m, k] = step[m, k // 32] * (256 high + low).

    high: (rows, in) i8, low: (rows, in) u8, step: (rows, in / 32) f32, as from `round_to_int16`; w: (out,
    in) i8, in a multiple of 32; scale: (out, in / 32) f32 -> o: (rows, out) f32. On `cpu` the bits of a row
    do not depend on how many rows there are. Differentiable in step and scale.
    """
    rows, first = tile(pid(0) * BM, BM), pid(1) * BX
    for i, total in enumerate(_totals(high, low, step, w, scale, rows, first, BX)):
        o.column[first + i, rows] = total


@kernel(grid=_grid, out=_out, tune=TUNE)
def int4_int16_linear(
    high: Ref,
    low: Ref,
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
    """As `int8_int16_linear`, for W[n, k] = scale[n, k // 32] * w[n, k] + minimum[n, k // 32].

    sums: as from `round_to_int16`; w: Packed u4 (out, in), in a multiple of 32; scale, minimum:
    (out, in / 32) f32 -> o: (rows, out) f32. Differentiable in step, sums, scale and minimum.
    """
    rows, first = tile(pid(0) * BM, BM), pid(1) * BX
    for i, total in enumerate(_totals(high, low, step, w, scale, rows, first, BX)):
        o.column[first + i, rows] = total + (minimum[rows, :] * sums[first + i, :]).sum(1)


def _totals(
    high: Ref, low: Ref, step: Ref, w: Ref, scale: Ref, rows: Tile, first: Expr, count: int
) -> tuple[Expr, ...]:
    """Columns (rows, 1) for `count` activations from `first`."""

    def add(g: Expr, totals: tuple[Expr, ...]) -> tuple[Expr, ...]:
        group, one = tile(g * NIBBLE_GROUP, NIBBLE_GROUP), tile(g, 1)

        def term(place: Expr) -> Expr:
            n = high[place, group] * 256 + low[place, group]
            return (w[rows, group] * n).sum(1).f32 * (scale[rows, one] * step[place, g])

        return tuple(total + term(first + i) for i, total in enumerate(totals))

    found: tuple[Expr, ...] = loop(
        0, w.shape[1] // NIBBLE_GROUP, add, tuple(zeros((rows.size, 1)) for _ in range(count))
    )
    return found
