"""Activations rounded to 8 bits in groups, as integer matrix products take them."""

from dsl.kernels.rows import TUNE, rows_for_gpu
from dsl.lang.arguments import Output, like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import abs_, cdiv, pid, round_, where

GROUP = 32
TUNE_GROUPS: Tuning = {
    **TUNE,
    "cpu": lambda x: {"BM": min(8, x.shape[0])},
    **dict.fromkeys(("cuda", "metal"), lambda x: rows_for_gpu(x.shape[0], GROUP)),
}


def _outputs(x: Ref) -> list[Output]:
    if x.shape[1] % GROUP:
        raise KernelError(f"groups are of {GROUP} columns and x has {x.shape[1]}; pad it with zeros")
    return [like(x, dtype="i8"), like(x, shape=(x.shape[0], x.shape[1] // GROUP), dtype="f32")]


@kernel(
    grid=lambda x, BM: (cdiv(x.shape[0], BM), x.shape[1] // GROUP),
    out=_outputs,
    tune=TUNE_GROUPS,
)
def round_to_int8(x: Ref, o: Ref, scale: Ref, *, BM: int = 8) -> None:
    """x = scale[r, c // 32] * o[r, c] to within half a step, the greatest of each group being +-127.

    x: (rows, columns) f32, f16 or bf16, columns a multiple of 32 -> o: i8 as x, scale: f32 (rows,
    columns / 32). Halves round to even. A group of zeros has scale 0. The rule of GGUF's Q8_0, with an
    f32 scale. Not differentiable: rounding is flat.
    """
    rows, group = tile(pid(0) * BM, BM), tile(pid(1) * GROUP, GROUP)
    t = x[rows, group].f32
    step = abs_(t).max(1) / 127.0
    o[rows, group] = round_(t / where(step == 0.0, 1.0, step)).i32
    scale.column[rows, pid(1)] = step
