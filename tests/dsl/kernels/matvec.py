"""A product that sums 4-bit groups inside of its loop; the library sums them after it, which is faster."""

from dsl.ir.types import NIBBLE_GROUP
from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, loop, pid, zeros


@kernel(
    grid=lambda w, BM: cdiv(w.shape[0], BM),
    out=lambda x, w: like(x, shape=(w.shape[0], 1), dtype="f32"),
)
def int4_matvec(x: Ref, w: Ref, scale: Ref, minimum: Ref, o: Ref, *, BM: int = 32) -> None:
    """o = W x for a 4-bit weight W[n, k] = scale[n, k // 32] * w[n, k] + minimum[n, k // 32].

    x: (1, in) f32, f16 or bf16; w: Packed u4 (out, in), in a multiple of 32; scale, minimum:
    (out, in / 32) f32 -> o: (out, 1) f32. The layout is GGUF's Q4_1 with its parts in three arrays.
    Of each group only sum(w x) and sum(x) are formed, so no weight is ever expanded in memory.
    Differentiable in x, scale and minimum.
    """
    rows = tile(pid(0) * BM, BM)

    def step(g: Expr, total: Expr) -> Expr:
        group = tile(g * NIBBLE_GROUP, NIBBLE_GROUP)
        part: Expr = x[0, group].f32
        products = (w[rows, group].f32 * part).sum(1)
        one = tile(g, 1)
        return total + (scale[rows, one] * products + minimum[rows, one] * part.sum(1))

    o[rows, :] = loop(0, w.shape[1] // NIBBLE_GROUP, step, zeros((BM, 1)))
