"""The kernels that the simulator's tests run: ragged, with loops of several passes, on small arrays."""

import jax.numpy as jnp
import numpy as np

import dsl
from dsl.kernels.attention import flash_attention
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from dsl.lower import oracle
from dsl.lower.c.emit import emit
from dsl.targets.sim.run import simulate
from tests.dsl.kernels.matvec import int4_matvec


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def packed(*shape):
    return dsl.Packed(jnp.asarray(np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)), "u4")


CASES = {
    "softmax": (softmax, (normal(13, 37),), {"BM": 5}),
    "flash_attention": (
        flash_attention,
        (normal(1, 2, 20, 8), normal(1, 2, 45, 8, seed=1), normal(1, 2, 45, 8, seed=2)),
        {"BM": 16, "BN": 18},
    ),
    "matmul": (matmul, (normal(17, 45), normal(45, 23, seed=1)), {"BM": 16, "BN": 18, "BK": 14}),
    "int4_matvec": (
        int4_matvec,
        (normal(1, 96), packed(41, 48), normal(41, 3, seed=1), normal(41, 3, seed=2)),
        {"BM": 10},
    ),
}


def prepared(kernel, args, keywords, out=None):
    """(IR, its input arrays, the oracle's outputs)."""
    ir = kernel.ir(*args, out=out, **keywords)
    arrays = [np.asarray(x) for x in kernel.prepare(args, out, keywords).arrays]
    return ir, arrays, oracle.run(ir, *arrays)


def agrees(ir, dialect, arrays, expected, *, program=None, orders=(0, 1), tolerance=2e-4):
    """Runs a program and asserts that its outputs are the oracle's."""
    found = simulate(ir, dialect, program or emit(ir, dialect), arrays, orders)
    for mine, theirs in zip(found, expected, strict=True):
        mine = np.asarray(mine, np.float64)
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)
    return found
