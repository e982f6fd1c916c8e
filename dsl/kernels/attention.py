"""Flash attention: softmax(q k^T) v without the score matrix in memory.

Online softmax of Milakov and Gimelshein (2018), tiled as by Dao et al., FlashAttention (2022).
"""

from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, dot, exp, full, loop, maximum, minimum, pid, where, zeros

MASKED = -1e30
"""Score of a forbidden pair: finite, so that no inf - inf arises."""
DENSE_SCORES = 2**22
"""Up to this many scores a head, the XLA lowering takes them at once; beyond, in tiles."""


def _for_xla(q: Ref, k: Ref) -> dict[str, int]:
    queries, keys = q.shape[2], k.shape[2]
    whole = queries * keys <= DENSE_SCORES
    return {"BM": queries if whole else 512, "BN": keys if whole else 512}


@kernel(
    grid=lambda q, BM: (q.shape[0], q.shape[1], cdiv(q.shape[2], BM)),
    out=lambda q: like(q),
    tune={"xla": _for_xla},
)
def flash_attention(
    q: Ref,
    k: Ref,
    v: Ref,
    o: Ref,
    *,
    BM: int = 32,
    BN: int = 32,
    causal: bool = True,
    scale: float | None = None,
) -> None:
    """Attention of each query over the keys of its head.

    q: (batch, heads, queries, dim), k and v: (batch, kv_heads, keys, dim), f32, f16 or bf16, with heads a
    multiple of kv_heads (grouped queries) -> o: as q. `causal`: query i sees keys up to
    i + keys - queries, so that the last query sees all. `scale` is dim ** -0.5 if None. Any lengths.
    A causal query that sees no key gives a mean of values, not NaN. Differentiable.
    """
    queries, dim, keys = q.shape[2], q.shape[3], k.shape[2]
    batch, head, block = pid(0), pid(1), pid(2)
    shared = head // (q.shape[1] // k.shape[1])
    rows = tile(block * BM, BM)
    scaled = q[batch, head, rows, :].f32 * (dim**-0.5 if scale is None else scale)

    def step(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        top, total, mixed = carry
        window = tile(j * BN, BN)
        scores = dot(scaled, k[batch, shared, window, :], transpose_b=True)
        if keys % BN:
            scores = where(window.cols() < keys, scores, MASKED)
        if causal:
            scores = where(rows.rows() + (keys - queries) >= window.cols(), scores, MASKED)
        higher = maximum(top, scores.max(1))
        p = exp(scores - higher)
        fade = exp(top - higher)
        return higher, total * fade + p.sum(1), mixed * fade + dot(p, v[batch, shared, window, :])

    last = cdiv(keys, BN)
    if causal:
        # Blocks of keys after the last query of this block are masked altogether: left out.
        last = maximum(minimum(cdiv((block + 1) * BM + (keys - queries), BN), last), 1)
    start = (full((BM, 1), MASKED), zeros((BM, 1)), zeros((BM, dim)))
    _, total, mixed = loop(0, last, step, start)
    o[batch, head, rows, :] = mixed / total
