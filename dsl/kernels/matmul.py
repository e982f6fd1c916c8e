"""Matrix products: plain, with an epilogue, batched, and of a matrix with a vector."""

from math import prod

from dsl.kernels.activation import ACTIVATIONS
from dsl.lang.arguments import Output, like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, Tile, tile
from dsl.lang.values import Expr, cdiv, dot, loop, pid, zeros


def _whole(a: Ref, b: Ref) -> dict[str, int]:
    return {"BM": a.shape[-2], "BN": b.shape[-1], "BK": a.shape[-1]}


def _for_gpu(a: Ref) -> dict[str, int]:
    """Tiles for matrix units, four warps of 16 rows; f32 is multiplied without them, in smaller ones."""
    return {} if a.dtype == "f32" else {"BM": 64 if a.shape[-2] > 32 else 32, "BN": 64, "BK": 64}


def _for_nvidia(a: Ref, b: Ref) -> dict[str, int]:
    """Larger tiles, which are read less often, where there are enough of them for every multiprocessor."""
    tiles = prod(a.shape[:-2]) * cdiv(a.shape[-2], 128) * cdiv(b.shape[-1], 128)
    large = a.dtype != "f32" and tiles >= MULTIPROCESSORS
    return {"BM": 128, "BN": 128, "BK": 64} if large else _for_gpu(a)


MULTIPROCESSORS = 108
"""Of an A100; an H100 has 132."""
TUNE: Tuning = {"xla": _whole, "cuda": _for_nvidia, "metal": _for_gpu}


def _a_row_a_warp(w: Ref) -> dict[str, int]:
    """For GPUs: rows join their lanes' sums once a kilobyte or two, not every few elements."""
    return {"BM": 4, "BK": min(w.shape[1], 1024)}


def _product(a: Ref, b: Ref) -> Output:
    return like(a, shape=(*a.shape[:-1], b.shape[-1]))


def _tiled_dot(a: Ref, b: Ref, lead: tuple[Expr, ...], rows: Tile, columns: Tile, BK: int) -> Expr:
    """a[*lead, rows, :] @ b[*lead, :, columns] in chunks of BK."""

    def step(k: Expr, total: Expr) -> Expr:
        inner = tile(k * BK, BK)
        return total + dot(a[(*lead, rows, inner)], b[(*lead, inner, columns)])

    found: Expr = loop(0, cdiv(a.shape[-1], BK), step, zeros((rows.size, columns.size)))
    return found


@kernel(
    grid=lambda a, b, BM, BN: (cdiv(a.shape[0], BM), cdiv(b.shape[1], BN)),
    out=_product,
    tune=TUNE,
    search={"BM": (16, 64), "BN": (16, 64)},
)
def matmul(a: Ref, b: Ref, o: Ref, *, BM: int = 32, BN: int = 32, BK: int = 32) -> None:
    """o = a @ b, tiled over rows and columns, in chunks of BK along the inner axis.

    a: (M, K), b: (K, N), f32, f16 or bf16 -> o: (M, N) of a's dtype; summed in f32. Any sizes: what is
    out of range loads as zero. Differentiable.
    """
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)
    o[rows, columns] = _tiled_dot(a, b, (), rows, columns, BK)


@kernel(
    grid=lambda a, b, BM, BN: (cdiv(a.shape[0], BM), cdiv(b.shape[1], BN)),
    out=_product,
    tune=TUNE,
)
def matmul_bias(
    a: Ref,
    b: Ref,
    bias: Ref,
    o: Ref,
    *,
    BM: int = 32,
    BN: int = 32,
    BK: int = 32,
    activation: str = "none",
) -> None:
    """o = activation(a @ b + bias), the bias and the activation applied to the f32 sums.

    a: (M, K), b: (K, N), bias: (N,), f32, f16 or bf16 -> o: (M, N) of a's dtype. `activation` is a name
    in `activation.ACTIVATIONS`: none, relu, silu, gelu, gelu_tanh. Differentiable.
    """
    if activation not in ACTIVATIONS:
        raise KernelError(f"there is no activation {activation!r}; use one of {', '.join(ACTIVATIONS)}")
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)
    total = _tiled_dot(a, b, (), rows, columns, BK) + bias[columns].f32
    o[rows, columns] = ACTIVATIONS[activation](total)


@kernel(
    grid=lambda a, b, BM, BN: (a.shape[0], cdiv(a.shape[1], BM), cdiv(b.shape[2], BN)),
    out=_product,
    tune=TUNE,
)
def batched_matmul(a: Ref, b: Ref, o: Ref, *, BM: int = 32, BN: int = 32, BK: int = 32) -> None:
    """o[i] = a[i] @ b[i].

    a: (batch, M, K), b: (batch, K, N), f32, f16 or bf16 -> o: (batch, M, N) of a's dtype; summed in f32.
    Differentiable. Two batch axes are `vmap` of this, or a reshape.
    """
    rows, columns = tile(pid(1) * BM, BM), tile(pid(2) * BN, BN)
    o[pid(0), rows, columns] = _tiled_dot(a, b, (pid(0),), rows, columns, BK)


@kernel(
    grid=lambda w, BM: cdiv(w.shape[0], BM),
    out=lambda w, x: like(x, shape=(w.shape[0],)),
    tune={
        "xla": lambda w: {"BM": w.shape[0], "BK": w.shape[1]},
        "cuda": _a_row_a_warp,
        "metal": _a_row_a_warp,
    },
)
def gemv(w: Ref, x: Ref, o: Ref, *, BM: int = 32, BK: int = 128) -> None:
    """o = w @ x of a matrix and a vector: products and row sums, since a dot of one column wastes lanes.

    w: (N, K), x: (K,), f32, f16 or bf16 -> o: (N,) of x's dtype; summed in f32. Differentiable.
    """
    rows = tile(pid(0) * BM, BM)

    def step(k: Expr, total: Expr) -> Expr:
        inner = tile(k * BK, BK)
        return total + (w[rows, inner].f32 * x[inner].f32).sum(1)

    o.column[rows] = loop(0, cdiv(w.shape[1], BK), step, zeros((BM, 1)))
