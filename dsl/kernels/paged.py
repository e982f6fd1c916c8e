"""A decoding step over a paged KV cache: attention that walks each sequence's table of blocks.

Paged attention of Kwon et al., vLLM (2023), with the online softmax of `dsl.kernels.attention`. The keys of
a block lie transposed, so that a row of scores is a plain sum of rows.
"""

from dsl.kernels.attention import MASKED, Softmax
from dsl.lang.arguments import like
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import Expr, cdiv, dot, loop, maximum, minimum, pid, where


@kernel(grid=lambda q, k: (q.shape[0], k.shape[1]), out=lambda q: like(q))
def paged_decode_attention(
    q: Ref,
    k: Ref,
    v: Ref,
    table: Ref,
    lengths: Ref,
    o: Ref,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> None:
    """Attention of one query a head over a sequence's blocks; a program takes a group of heads.

    q: (rows, heads, dim), k: (blocks, kv_heads, dim, size), v: (blocks, kv_heads, size, dim), f32, f16 or
    bf16, heads a multiple of kv_heads; table: (rows, width) i32, the blocks of a row in the order of its
    positions; lengths: (rows,) i32, 1 to width * size -> o: as q. Positions at or beyond a row's length
    are not seen, whatever they hold, nor, with `window`, those before its last `window`. `scale` is
    dim ** -0.5 if None.
    A row's result does not depend on the other rows, nor on how many there are. Differentiable.
    """
    dim, size, group, width = q.shape[2], k.shape[3], q.shape[1] // k.shape[1], table.shape[1]
    row, shared = pid(0), pid(1)
    length, heads = lengths[row], tile(pid(1) * group, group)
    scaled = q[row, heads, :].f32 * (dim**-0.5 if scale is None else scale)

    def whole(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        block = table[row, j]
        return Softmax(*carry).add(dot(scaled, k[block, shared, :, :]), v[block, shared, :, :].f32)

    def masked(j: Expr, carry: tuple[Expr, Expr, Expr]) -> tuple[Expr, Expr, Expr]:
        some, block = tile(j * size, size), table[row, j]
        positions = some.cols()
        scores = where(positions < length, dot(scaled, k[block, shared, :, :]), MASKED)
        if window is not None:
            scores = where(positions >= length - window, scores, MASKED)
        # A weight of 0 would not silence what is no number.
        values = where(some.rows() < length, v[block, shared, :, :].f32, 0.0)
        return Softmax(*carry).add(scores, values)

    last = maximum(minimum(cdiv(length, size), width), 1)
    first: Expr | int = 0
    if window is not None:
        first = minimum(maximum((length - window) // size, 0), last - 1)
    # Without a window nothing in the blocks before a sequence's last needs a mask.
    early = masked if window is not None else whole
    carry = Softmax.start(group, dim)
    if width > 1:
        carry = loop(first, last - 1, early, carry, max_trip=width - 1)
    _, total, mixed = masked(last - 1, carry)
    o[row, heads, :] = mixed / total
