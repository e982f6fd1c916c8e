"""Flash attention: softmax(q k^T) v without the score matrix in memory.

Online softmax of Milakov and Gimelshein (2018), tiled as by Dao et al., FlashAttention (2022).
"""

from dataclasses import dataclass

from dsl.lang.arguments import like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import Tuning, kernel
from dsl.lang.refs import Ref, Tile, tile
from dsl.lang.values import Expr, cdiv, dot, exp, full, loop, maximum, minimum, pid, where, zeros

MASKED = -1e30
"""Score of a forbidden pair: finite, so that no inf - inf arises."""
DENSE_SCORES = 2**22
"""Up to this many scores a head, the XLA lowering takes them at once; beyond, in tiles."""


@dataclass(frozen=True)
class Softmax:
    """The state of an online softmax over rows, a carry of a loop over blocks of keys.

    Attributes: the greatest score yet (rows, 1), the sum of exponentials (rows, 1), the weighted sum of
    values (rows, dim); the last two relative to the first.
    """

    top: Expr
    total: Expr
    mixed: Expr

    @staticmethod
    def start(rows: int, dim: int) -> tuple[Expr, Expr, Expr]:
        return full((rows, 1), MASKED), zeros((rows, 1)), zeros((rows, dim))

    def add(self, scores: Expr, values: Expr) -> tuple[Expr, Expr, Expr]:
        """Takes in a block: scores (rows, keys), values (keys, dim).

        Weights are rounded to the dtype of narrow values, which matrix units take, and summed unrounded.
        """
        higher = maximum(self.top, scores.max(1))
        p = exp(scores - higher)
        fade = exp(self.top - higher)
        mixed = self.mixed * fade + dot(p.astype(values.dtype), values)
        return higher, self.total * fade + p.sum(1), mixed


def _for_xla(q: Ref, k: Ref) -> dict[str, int]:
    queries, keys = q.shape[2], k.shape[2]
    whole = queries * keys <= DENSE_SCORES
    return {"BM": queries if whole else 512, "BN": keys if whole else 512}


def _for_gpu(q: Ref) -> dict[str, int]:
    """Tiles for matrix units, of what registers hold of a row; f32 is multiplied without them."""
    if q.dtype == "f32":
        return {}
    return {"BM": 64 if q.shape[2] > 32 else 32, "BN": 64 if q.shape[3] <= 64 else 32}


TUNE: Tuning = {"xla": _for_xla, "cuda": _for_gpu, "metal": _for_gpu}


def _check_window(window: int | None, causal: bool) -> None:
    if window is not None and (window < 1 or not causal):
        raise KernelError("window is a number of keys >= 1, and looks back: it needs causal=True")


def _seen(scores: Expr, places: Expr, keys: Tile, window: int | None) -> Expr:
    """Scores of the keys up to each query's place, and no further back than the window."""
    scores = where(places >= keys.cols(), scores, MASKED)
    return scores if window is None else where(places - window < keys.cols(), scores, MASKED)


@kernel(
    grid=lambda q, BM: (q.shape[0], q.shape[1], cdiv(q.shape[2], BM)),
    out=lambda q: like(q),
    tune=TUNE,
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
    window: int | None = None,
    scale: float | None = None,
) -> None:
    """Attention of each query over the keys of its head.

    q: (batch, heads, queries, dim), k and v: (batch, kv_heads, keys, dim), f32, f16 or bf16, with heads a
    multiple of kv_heads (grouped queries) -> o: as q. `causal`: query i sees keys up to
    i + keys - queries, so that the last query sees all; with `window`, only the last `window` of them.
    `scale` is dim ** -0.5 if None. Any lengths. A causal query that sees no key gives a mean of values,
    not NaN. Differentiable.
    """
    _check_window(window, causal)
    queries, dim, keys = q.shape[2], q.shape[3], k.shape[2]
    batch, head, block = pid(0), pid(1), pid(2)
    shared = head // (q.shape[1] // k.shape[1])
    rows = tile(block * BM, BM)
    queried, factor = q[batch, head, rows, :], dim**-0.5 if scale is None else scale

    def step(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        some = tile(j * BN, BN)
        scores = dot(queried, k[batch, shared, some, :], transpose_b=True) * factor
        if keys % BN and not causal:  # causal queries see no place after the last key anyway
            scores = where(some.cols() < keys, scores, MASKED)
        if causal:
            scores = _seen(scores, rows.rows() + (keys - queries), some, window)
        return Softmax(*carry).add(scores, v[batch, shared, some, :])

    first: Expr | int = 0
    last: Expr | int = cdiv(keys, BN)
    if causal:
        # Blocks of keys after the last query of this block are masked altogether: left out.
        last = maximum(minimum(cdiv((block + 1) * BM + (keys - queries), BN), last), 1)
    if window is not None:
        oldest = block * BM + (keys - queries - window + 1)
        first = minimum(maximum(oldest // BN, 0), last - 1)
    _, total, mixed = loop(first, last, step, Softmax.start(BM, dim))
    o[batch, head, rows, :] = mixed / total


@kernel(
    grid=lambda q, BM: (q.shape[0], q.shape[1], cdiv(q.shape[2], BM)),
    out=lambda q: like(q),
    tune=TUNE,
)
def ragged_attention(
    q: Ref,
    k: Ref,
    v: Ref,
    lengths: Ref,
    o: Ref,
    *,
    BM: int = 32,
    BN: int = 32,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
) -> None:
    """Attention within sequences of different lengths, padded on the right.

    q: (batch, heads, tokens, dim), k and v: (batch, kv_heads, tokens, dim), f32, f16 or bf16; lengths:
    (batch,) i32, 0 to tokens -> o: as q, zero for the padding. Tokens at or beyond their sequence's
    length are not seen; `causal`, `window` and `scale` as in `flash_attention`. Blocks of padding cost
    nothing on targets whose loops end where the data says. Differentiable.
    """
    _check_window(window, causal)
    dim, tokens = q.shape[3], k.shape[2]
    batch, head, block = pid(0), pid(1), pid(2)
    shared, length = head // (q.shape[1] // k.shape[1]), lengths[batch]
    rows = tile(block * BM, BM)
    queried, factor = q[batch, head, rows, :], dim**-0.5 if scale is None else scale

    def step(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        some = tile(j * BN, BN)
        scores = dot(queried, k[batch, shared, some, :], transpose_b=True) * factor
        scores = where(some.cols() < length, scores, MASKED)
        if causal:
            scores = _seen(scores, rows.rows(), some, window)
        return Softmax(*carry).add(scores, v[batch, shared, some, :])

    blocks = cdiv(tokens, BN)
    last = minimum(cdiv(length, BN), cdiv((block + 1) * BM, BN) if causal else blocks)
    last = maximum(minimum(last, blocks), 1)
    _, total, mixed = loop(0, last, step, Softmax.start(BM, dim), max_trip=blocks)
    o[batch, head, rows, :] = where(rows.rows() < length, mixed / total, 0.0)
