"""x W^T for many rows of x, with weights that stay int8 or int4 in memory: prefill on a GPU.

The weights are those of `quant_linear`: groups of 32 along the inner axis with a scale (and for int4 a
minimum). They enter the products as whole numbers, which f16 and bf16 hold exactly, so a matrix unit
takes them with narrow x; the scale of each group multiplies its f32 sums, and no dequantised weight is
ever rounded.
"""

from dsl.ir.types import NIBBLE_GROUP
from dsl.kernels.quant_linear import expanded_rows
from dsl.lang.arguments import Output, like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, dot, loop, pid, zeros


def _grid(x: Ref, w: Ref, BM: int, BN: int) -> tuple[int, int]:
    return cdiv(x.shape[0], BM), cdiv(w.shape[0], BN)


def _out(x: Ref, w: Ref) -> Output:
    if w.shape[1] % NIBBLE_GROUP:
        raise KernelError(f"groups are of {NIBBLE_GROUP} columns and w has {w.shape[1]}; pad it with zeros")
    return like(x, shape=(x.shape[0], w.shape[0]), dtype="f32")


def _for_xla(x: Ref, w: Ref) -> dict[str, int]:
    return {"BM": x.shape[0], "BN": expanded_rows(w)}


def _tall(x: Ref) -> dict[str, int]:
    return {"BM": 64 if x.shape[0] > 32 else 32, "BN": 64}


TUNE: Tuning = {"xla": _for_xla, "cuda": _tall, "metal": _tall}


@kernel(grid=_grid, out=_out, tune=TUNE)
def int8_matmul(x: Ref, w: Ref, scale: Ref, o: Ref, *, BM: int = 32, BN: int = 32) -> None:
    """o = x W^T for W[n, k] = scale[n, k // 32] * w[n, k].

    x: (rows, in) f32, f16 or bf16; w: (out, in) i8, in a multiple of 32; scale: (out, in / 32) f32 ->
    o: (rows, out) f32. Differentiable in x and scale.
    """
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)

    def step(g: Expr, total: Expr) -> Expr:
        group = tile(g * NIBBLE_GROUP, NIBBLE_GROUP)
        part = x[rows, group]
        return total + dot(part, w[columns, group].astype(part.dtype), transpose_b=True) * scale[columns, g]

    o[rows, columns] = loop(0, w.shape[1] // NIBBLE_GROUP, step, zeros((BM, BN)))


@kernel(grid=_grid, out=_out, tune=TUNE)
def int4_matmul(x: Ref, w: Ref, scale: Ref, minimum: Ref, o: Ref, *, BM: int = 32, BN: int = 32) -> None:
    """o = x W^T for W[n, k] = scale[n, k // 32] * w[n, k] + minimum[n, k // 32].

    x: (rows, in) f32, f16 or bf16; w: Packed u4 (out, in), in a multiple of 32; scale, minimum:
    (out, in / 32) f32 -> o: (rows, out) f32. The minima multiply the sums of x over each group.
    Differentiable in x, scale and minimum.
    """
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)

    def step(g: Expr, total: Expr) -> Expr:
        group = tile(g * NIBBLE_GROUP, NIBBLE_GROUP)
        part = x[rows, group]
        products = dot(part, w[columns, group].astype(part.dtype), transpose_b=True)
        return total + (products * scale[columns, g] + part.f32.sum(1) * minimum[columns, g])

    o[rows, columns] = loop(0, w.shape[1] // NIBBLE_GROUP, step, zeros((BM, BN)))
