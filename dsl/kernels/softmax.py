"""Softmax over the last axis."""

from dsl.kernels.rows import TUNE
from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import cdiv, exp, pid


@kernel(
    grid=lambda x, BM: cdiv(x.shape[0], BM),
    out=lambda x: like(x),
    tune=TUNE,
    search={"BM": (2, 4, 16, 32)},
)
def softmax(x: Ref, o: Ref, *, BM: int = 8) -> None:
    """Row-wise softmax, with the row's maximum subtracted.

    x: (rows, columns) f32, f16 or bf16 -> o: the same; computed in f32. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    t = x[rows, :].f32
    e = exp(t - t.max(1))
    o[rows, :] = e * (1.0 / e.sum(1))
