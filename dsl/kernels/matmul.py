"""Matrix product."""

from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, dot, loop, pid, zeros


@kernel(
    grid=lambda a, b, BM, BN: (cdiv(a.shape[0], BM), cdiv(b.shape[1], BN)),
    out=lambda a, b: like(a, shape=(a.shape[0], b.shape[1])),
    tune={"xla": lambda a, b: {"BM": a.shape[0], "BN": b.shape[1], "BK": a.shape[1]}},
)
def matmul(a: Ref, b: Ref, o: Ref, *, BM: int = 32, BN: int = 32, BK: int = 32) -> None:
    """o = a @ b, tiled over rows and columns, in chunks of BK along the inner axis.

    a: (M, K), b: (K, N), f32, f16 or bf16 -> o: (M, N) of a's dtype; summed in f32. Any sizes: what is
    out of range loads as zero. Differentiable.
    """
    rows, columns = tile(pid(0) * BM, BM), tile(pid(1) * BN, BN)

    def step(k: Expr, total: Expr) -> Expr:
        inner = tile(k * BK, BK)
        return total + dot(a[rows, inner], b[inner, columns])

    o[rows, columns] = loop(0, cdiv(a.shape[1], BK), step, zeros((BM, BN)))
