"""Decode attention over a cache whose keys lie transposed, as the engine's do."""

from dsl.kernels.attention import MASKED, Softmax
from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, dot, loop, maximum, minimum, pid, where


@kernel(
    grid=lambda q, k: (q.shape[0], k.shape[1]),
    out=lambda q: like(q),
    tune={"xla": lambda k: {"BN": k.shape[3]}},
)
def decode_attention_by_columns(
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
    """As `decode.decode_attention`, with keys (batch, kv_heads, dim, slots): the scores are a plain product.

    q: (batch, heads, dim), v: (batch, kv_heads, slots, dim), f32, f16 or bf16, heads a multiple of kv_heads;
    lengths: (batch,) i32, 1 to slots -> o: as q. On `cpu` the bits of a sequence depend neither on the
    others nor on the number of slots, if that is a multiple of BN. Differentiable.
    """
    dim, slots, group = q.shape[2], k.shape[3], q.shape[1] // k.shape[1]
    batch, shared = pid(0), pid(1)
    length, heads = lengths[batch], tile(pid(1) * group, group)
    scaled = q[batch, heads, :].f32 * (dim**-0.5 if scale is None else scale)

    def step(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        some = tile(j * BN, BN)
        scores = dot(scaled, k[batch, shared, :, some])
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
