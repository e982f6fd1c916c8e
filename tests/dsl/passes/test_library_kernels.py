"""What the passes together leave of the guards and loops of the library's kernels."""

import jax
import jax.numpy as jnp

from dsl.ir.affine import Ranges
from dsl.ir.ops import Loop, Where, walk
from dsl.kernels.attention import flash_attention
from dsl.kernels.decode import decode_attention


def attention(tokens, **sizes):
    q = jax.ShapeDtypeStruct((1, 1, tokens, 8), jnp.float32)
    return flash_attention.ir(q, q, q, **sizes)


def test_attention_over_whole_blocks_has_no_guard_left():
    """Only the causal mask, which no range decides, stays."""

    def masks(kernel):
        return sum(isinstance(op, Where) for op in walk(kernel.body))

    assert masks(attention(64, BM=32, BN=32, causal=False)) == 0
    assert masks(attention(64, BM=32, BN=32)) == 1
    assert masks(attention(60, BM=32, BN=32)) == 1
    assert masks(attention(60, BM=32, BN=32, causal=False)) == 1


def test_a_loop_over_data_that_fits_one_block_becomes_straight_code():
    q, k = jax.ShapeDtypeStruct((2, 4, 8), jnp.float32), jax.ShapeDtypeStruct((2, 2, 16, 8), jnp.float32)
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    for block, loops in ((16, 0), (8, 1)):
        kernel = decode_attention.ir(q, k, k, lengths, BN=block)
        found = [op for op in walk(kernel.body) if isinstance(op, Loop)]
        assert len(found) == loops
        assert all(Ranges(kernel).trip(op) == 2 for op in found)
