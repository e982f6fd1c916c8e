"""The check of a freshly compiled kernel: it knows rounding from mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import dot
from dsl.lower import xla
from dsl.runtime.selfcheck import disagreement


@dsl.kernel(grid=1, out=lambda x: dsl.like(x))
def narrow(x, y, o, *, dtype="bf16"):
    o[:, :] = dot(x[:, :].astype(dtype), y[:, :].astype(dtype))


def outcome(kernel, wrong=0.0):
    def run(inputs, outputs, programs):
        assert programs == [0]
        outputs[0][...] = np.asarray(jax.jit(xla.lower(kernel))(*inputs)[0]) + wrong

    return disagreement(kernel, run)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_what_a_narrow_dot_rounds_is_no_mistake(dtype):
    x = jnp.ones((6, 6))
    kernel = narrow.ir(x, x, dtype=dtype)
    assert outcome(kernel) is None
    assert "self-check failed" in outcome(kernel, wrong=0.5)
