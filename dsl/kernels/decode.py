"""A decoding step over a KV cache: attention of one new token, and the append before it."""

from dsl.kernels.attention import MASKED, Softmax
from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, dot, loop, maximum, minimum, pid, where


def _for_gpu(q: Ref) -> dict[str, int]:
    return {} if q.dtype == "f32" else {"BN": 32}


@kernel(
    grid=lambda q, k: (q.shape[0], k.shape[1]),
    out=lambda q: like(q),
    tune={"xla": lambda k: {"BN": k.shape[2]}, "cuda": _for_gpu, "metal": _for_gpu},
)
def decode_attention(
    q: Ref,
    k: Ref,
    v: Ref,
    lengths: Ref,
    o: Ref,
    *,
    BN: int = 64,
    window: int | None = None,
    scale: float | None = None,
) -> None:
    """Attention of one query a head over the filled part of a cache; a program takes a group of heads.

    q: (batch, heads, dim), k and v: (batch, kv_heads, slots, dim), f32, f16 or bf16, heads a multiple of
    kv_heads; lengths: (batch,) i32, 1 to slots -> o: as q. Slots at or beyond a sequence's length are not
    seen, nor, with `window`, those before its last `window`. `scale` is dim ** -0.5 if None.
    A length of 0 gives a mean of values, not NaN. Differentiable.
    """
    dim, slots, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    batch, shared = pid(0), pid(1)
    length, heads = lengths[batch], tile(pid(1) * group, group)
    queried, factor = q[batch, heads, :], dim**-0.5 if scale is None else scale

    def step(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        some = tile(j * BN, BN)
        scores = dot(queried, k[batch, shared, some, :], transpose_b=True) * factor
        scores = where(some.cols() < length, scores, MASKED)
        if window is not None:
            scores = where(some.cols() >= length - window, scores, MASKED)
        return Softmax(*carry).add(scores, v[batch, shared, some, :])

    last = maximum(minimum(cdiv(length, BN), cdiv(slots, BN)), 1)
    first: Expr | int = 0
    if window is not None:
        first = minimum(maximum((length - window) // BN, 0), last - 1)
    _, total, mixed = loop(first, last, step, Softmax.start(group, dim), max_trip=cdiv(slots, BN))
    o[batch, heads, :] = mixed / total


@kernel(grid=lambda new: (new.shape[0], new.shape[1], new.shape[2]))
def kv_append(new: Ref, starts: Ref, cache: Ref) -> None:
    """Writes new keys (or values) into a cache: cache[b, h, starts[b] + t] = new[b, h, t].

    new: (batch, kv_heads, tokens, dim), starts: (batch,) i32, out=update(cache) with cache: (batch,
    kv_heads, slots, dim), both of one dtype. Tokens that fall outside of the cache are dropped; all other
    slots keep what they hold. Differentiable.
    """
    batch, head, token = pid(0), pid(1), pid(2)
    cache[batch, head, starts[batch] + token, :] = new[batch, head, token, :]
