"""Activations: as expressions to fuse into other kernels, and as kernels over rows.

SiLU: Elfwing et al. (2017). GELU and its tanh form: Hendrycks and Gimpel (2016). SwiGLU: Shazeer (2020).
"""

from collections.abc import Callable

from dsl.kernels.rows import TUNE, rows_for_gpu
from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, erf, maximum, pid, tanh


def silu_of(x: Expr) -> Expr:
    """x * sigmoid(x), by tanh: it overflows nowhere, and neither does its gradient."""
    return x * (tanh(x * 0.5) * 0.5 + 0.5)


def gelu_of(x: Expr) -> Expr:
    """x times the normal distribution function."""
    return x * (erf(x * 0.5**0.5) * 0.5 + 0.5)


def gelu_tanh_of(x: Expr) -> Expr:
    """The tanh approximation of GELU: GPT-2's, and "gelu_new" in checkpoints."""
    return x * (tanh((x + x * x * x * 0.044715) * 0.7978845608028654) * 0.5 + 0.5)


def relu_of(x: Expr) -> Expr:
    return maximum(x, 0.0)


ACTIVATIONS: dict[str, Callable[[Expr], Expr]] = {
    "none": lambda x: x,
    "relu": relu_of,
    "silu": silu_of,
    "gelu": gelu_of,
    "gelu_tanh": gelu_tanh_of,
}
"""Epilogues by name."""


@kernel(
    grid=lambda x, BM: cdiv(x.shape[0], BM),
    out=lambda x: like(x),
    tune=TUNE,
    search={"BM": (2, 4, 16, 32)},
)
def silu(x: Ref, o: Ref, *, BM: int = 8) -> None:
    """o = x * sigmoid(x). x: (rows, columns) f32, f16 or bf16 -> o: the same; in f32. Differentiable."""
    rows = tile(pid(0) * BM, BM)
    o[rows, :] = silu_of(x[rows, :].f32)


@kernel(
    grid=lambda x, BM: cdiv(x.shape[0], BM),
    out=lambda x: like(x),
    tune=TUNE,
    search={"BM": (2, 4, 16, 32)},
)
def gelu(x: Ref, o: Ref, *, BM: int = 8, approximate: bool = False) -> None:
    """GELU, by erf or, if `approximate`, by tanh.

    x: (rows, columns) f32, f16 or bf16 -> o: the same; in f32. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    t = x[rows, :].f32
    o[rows, :] = gelu_tanh_of(t) if approximate else gelu_of(t)


@kernel(
    grid=lambda gate, BM: cdiv(gate.shape[0], BM),
    out=lambda gate: like(gate),
    tune=dict.fromkeys(("cuda", "metal"), lambda gate: rows_for_gpu(gate.shape[0], gate.shape[1]))
    | {"xla": lambda gate: {"BM": gate.shape[0]}},
    search={"BM": (2, 4, 16, 32)},
)
def swiglu(gate: Ref, up: Ref, o: Ref, *, BM: int = 8) -> None:
    """o = silu(gate) * up, the middle of a gated feed-forward layer.

    gate, up: (rows, columns) f32, f16 or bf16 -> o: as gate; in f32. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)
    o[rows, :] = silu_of(gate[rows, :].f32) * up[rows, :].f32
