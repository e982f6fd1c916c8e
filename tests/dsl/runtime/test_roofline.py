"""The least time of a kernel, from its cost and a machine's peaks."""

import jax.numpy as jnp
import pytest

from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from dsl.passes.cost import cost
from dsl.runtime.roofline import Machine, machine, roofline

ROUND = Machine("a round machine", 1e9, 1e9, False)


def test_a_product_is_bound_by_arithmetic_and_a_softmax_by_memory():
    a = jnp.ones((64, 64))
    product = roofline(cost(matmul.ir(a, a)), ROUND)
    assert product.bound == "arithmetic"
    assert product.seconds == pytest.approx((2 * 64**3 + 2 * 64 * 64) / 1e9, rel=0.05)
    copied = roofline(cost(softmax.ir(a)), Machine("of fast arithmetic", 1e9, 1e12, False))
    assert copied.bound == "memory"
    assert copied.seconds == pytest.approx(2 * 4 * 64 * 64 / 1e9)


def test_explain_ends_with_the_roofline_of_this_machine():
    told = str(softmax.explain(jnp.ones((64, 64)))).splitlines()[-1]
    assert "at least" in told and "bound by" in told and "GB/s" in told and "measured" in told


def test_this_processor_is_measured_once_to_plausible_figures():
    found = machine("cpu")
    assert found is machine("cpu")
    assert 1e8 < found.bandwidth < 1e13 and 1e8 < found.flops < 1e14
