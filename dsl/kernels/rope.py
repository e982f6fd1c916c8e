"""Rotary position embedding (Su et al., RoFormer, 2021), in both orders that checkpoints use."""

import jax
import jax.numpy as jnp

from dsl.lang.arguments import like
from dsl.lang.errors import KernelError
from dsl.lang.kernel import kernel
from dsl.lang.refs import Ref, tile
from dsl.lang.values import cdiv, pid


def rope_tables(positions: jax.Array, dim: int, base: float = 10000.0) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of positions (batch, tokens), f32 (batch, tokens, dim / 2): the input of `rope`."""
    rates = base ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = positions[..., None].astype(jnp.float32) * rates
    return jnp.cos(angles), jnp.sin(angles)


@kernel(
    grid=lambda x, BM: (x.shape[0], x.shape[1], cdiv(x.shape[2], BM)),
    out=lambda x: like(x),
    tune={"xla": lambda x: {"BM": x.shape[2]}},
    search={"BM": (8, 16, 64)},
)
def rope(x: Ref, cos: Ref, sin: Ref, o: Ref, *, BM: int = 32) -> None:
    """Turns element i of a head's first half with element i of its second (the order of NeoX and of HF).

    x: (batch, heads, tokens, dim) f32, f16 or bf16, dim even; cos, sin: (batch, tokens, dim / 2) f32 ->
    o: as x; in f32. Differentiable.
    """
    half = x.shape[3] // 2
    if x.shape[3] % 2:
        raise KernelError(f"rope turns pairs, and a head has {x.shape[3]} elements; make it even")
    batch, head, rows = pid(0), pid(1), tile(pid(2) * BM, BM)
    low, high = x[batch, head, rows, :half].f32, x[batch, head, rows, half:].f32
    c, s = cos[batch, rows, :], sin[batch, rows, :]
    o[batch, head, rows, :half] = low * c - high * s
    o[batch, head, rows, half:] = high * c + low * s


@kernel(
    grid=lambda x, BM: (x.shape[0], x.shape[1], cdiv(x.shape[2], BM)),
    out=lambda x: like(x),
    tune={"xla": lambda x: {"BM": x.shape[2]}},
    search={"BM": (8, 16, 64)},
)
def rope_interleaved(x: Ref, cos: Ref, sin: Ref, o: Ref, *, BM: int = 32) -> None:
    """As `rope`, of neighbours (the order of RoFormer and of GGUF's Llama).

    x: (batch, heads, tokens, dim / 2, 2), a reshape of (..., dim) -> o: as x.
    """
    if x.shape[4] != 2:
        raise KernelError("rope_interleaved takes pairs: reshape x to (batch, heads, tokens, dim / 2, 2)")
    batch, head, rows = pid(0), pid(1), tile(pid(2) * BM, BM)
    even, odd = x[batch, head, rows, :, 0].f32, x[batch, head, rows, :, 1].f32
    c, s = cos[batch, rows, :], sin[batch, rows, :]
    o[batch, head, rows, :, 0] = even * c - odd * s
    o[batch, head, rows, :, 1] = odd * c + even * s
