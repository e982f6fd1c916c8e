"""Normalisation of rows, alone or fused with the residual addition before it.

LayerNorm: Ba et al. (2016). RMSNorm: Zhang and Sennrich (2019).
"""

from dsl.kernels.rows import TUNE
from dsl.lang.arguments import Output, like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, pid, rsqrt


def rms_normed(t: Expr, eps: float) -> Expr:
    """Rows divided by their root mean square."""
    return t * rsqrt((t * t).sum(1) * (1.0 / t.shape[1]) + eps)


def layer_normed(t: Expr, eps: float) -> Expr:
    """Rows less their mean, divided by their standard deviation; in two steps, so nothing cancels."""
    centred = t - t.sum(1) * (1.0 / t.shape[1])
    return rms_normed(centred, eps)


_SEARCH = {"BM": (2, 4, 16, 32)}


def _twice(x: Ref) -> list[Output]:
    return [like(x), like(x)]


@kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=lambda x: like(x), tune=TUNE, search=_SEARCH)
def rms_norm(x: Ref, weight: Ref, o: Ref, *, BM: int = 8, eps: float = 1e-6) -> None:
    """o = x / sqrt(mean(x^2) + eps) * weight, by rows.

    x: (rows, columns), weight: (columns,), each f32, f16 or bf16 -> o: as x; in f32. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    o[rows, :] = rms_normed(x[rows, :].f32, eps) * weight[:].f32


@kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=lambda x: like(x), tune=TUNE, search=_SEARCH)
def layer_norm(x: Ref, weight: Ref, bias: Ref, o: Ref, *, BM: int = 8, eps: float = 1e-5) -> None:
    """o = (x - mean) / sqrt(variance + eps) * weight + bias, by rows; the variance is the biased one.

    x: (rows, columns), weight, bias: (columns,), each f32, f16 or bf16 -> o: as x; in f32. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    o[rows, :] = layer_normed(x[rows, :].f32, eps) * weight[:].f32 + bias[:].f32


@kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=_twice, tune=TUNE, search=_SEARCH)
def add_rms_norm(
    x: Ref, residual: Ref, weight: Ref, o: Ref, total: Ref, *, BM: int = 8, eps: float = 1e-6
) -> None:
    """total = x + residual; o = RMSNorm(total): a residual addition with the norm that follows it.

    x, residual: (rows, columns), weight: (columns,), f32, f16 or bf16 -> o, total: as x. The norm is of
    the sum in f32, before `total` is rounded. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    t = x[rows, :].f32 + residual[rows, :].f32
    total[rows, :] = t
    o[rows, :] = rms_normed(t, eps) * weight[:].f32


@kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=_twice, tune=TUNE, search=_SEARCH)
def add_layer_norm(
    x: Ref, residual: Ref, weight: Ref, bias: Ref, o: Ref, total: Ref, *, BM: int = 8, eps: float = 1e-5
) -> None:
    """total = x + residual; o = LayerNorm(total), as `layer_norm`.

    x, residual: (rows, columns), weight, bias: (columns,), f32, f16 or bf16 -> o, total: as x.
    Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    t = x[rows, :].f32 + residual[rows, :].f32
    total[rows, :] = t
    o[rows, :] = layer_normed(t, eps) * weight[:].f32 + bias[:].f32
