"""Activations rounded to 16 bits in groups, as two bytes: nearly exact, and still fit for integer dots."""

from dsl.kernels.round8 import GROUP, TUNE_GROUPS
from dsl.lang.arguments import Output, like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import abs_, cdiv, pid, round_, where

LARGEST = 2**15 - 1


def _outputs(x: Ref) -> list[Output]:
    if x.shape[1] % GROUP:
        raise KernelError(f"groups are of {GROUP} columns and x has {x.shape[1]}; pad it with zeros")
    groups = like(x, shape=(x.shape[0], x.shape[1] // GROUP), dtype="f32")
    return [like(x, dtype="i8"), like(x, dtype="u8"), groups, groups]


@kernel(
    grid=lambda x, BM: (cdiv(x.shape[0], BM), x.shape[1] // GROUP),
    out=_outputs,
    tune=TUNE_GROUPS,
)
def round_to_int16(x: Ref, high: Ref, low: Ref, step: Ref, sums: Ref, *, BM: int = 8) -> None:
    """x = step[r, c // 32] * n[r, c] to within half a step, n = high * 256 + low, +-32767 at the greatest.

    x: (rows, columns) f32, f16 or bf16, columns a multiple of 32 -> high: i8, low: u8, as x; step, sums: f32
    (rows, columns / 32), sums the total of each rounded group. Halves round to even. A group of zeros has
    step 0. Not differentiable: rounding is flat.
    """
    rows, group = tile(pid(0) * BM, BM), tile(pid(1) * GROUP, GROUP)
    t = x[rows, group].f32
    length = abs_(t).max(1) * (1 / LARGEST)
    n = round_(t / where(length == 0.0, 1.0, length)).i32
    high[rows, group], low[rows, group] = n >> 8, n & 255
    step.column[rows, pid(1)] = length
    sums.column[rows, pid(1)] = n.sum(1).f32 * length
