"""The Metal target away from a Mac: its source, its types, what it says, and how arrays reach a launch."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import METAL
from dsl.lower.c.emit import emit
from dsl.runtime.selfcheck import disagreement
from dsl.targets.metal import check
from dsl.targets.metal.target import launch
from dsl.targets.sim.run import simulate
from tests.dsl.targets.cuda.test_nvrtc import every_function
from tests.dsl.targets.sim.cases import CASES, normal, packed, prepared

typed = pytest.mark.skipif(not check.installed(), reason=check.MISSING)


def test_source_is_shown_on_any_machine():
    text = softmax.source("metal", normal(13, 20))
    assert "kernel void softmax_kernel(device const float* x_ref [[buffer(0)]]" in text


@pytest.mark.skipif(sys.platform == "darwin", reason="says why it does not run elsewhere than on a Mac")
def test_elsewhere_than_on_a_mac_the_reason_names_the_simulator():
    with pytest.raises(dsl.BackendError, match=r"needs macOS.*sim:metal"):
        softmax(normal(2, 3), backend="metal")


@typed
@pytest.mark.parametrize("name", CASES)
def test_library_kernels_are_well_typed(name):
    assert check.problems(emit(prepared(*CASES[name])[0], METAL).source) == []


@typed
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_every_function_and_storage_dtype_is_well_typed(dtype):
    x, i = normal(2, 8, dtype=dtype), jnp.arange(8, dtype=jnp.int32)
    assert check.problems(emit(every_function.ir(x, i, packed(2, 16)), METAL).source) == []


@typed
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("device const float* x_ref", "const float* x_ref"),
        ("threadgroup float pool", "device float pool"),
        ("exp(", "nonsense("),
        ("simd_shuffle_xor(t, ushort(16))", "simd_shuffle_xor(t)"),
    ],
)
def test_planted_mistakes_are_found(old, new):
    case = prepared(*CASES["flash_attention" if "pool" in old else "softmax"])
    source = emit(case[0], METAL).source
    assert old in source
    assert check.problems(source.replace(old, new)) != []


def test_a_launch_is_given_an_array_for_each_parameter_and_checked_against_the_oracle():
    """As on a Mac, with the simulator in the place of the device."""

    @dsl.kernel(grid=lambda new: new.shape[0])
    def append(new, at, cache):
        cache[at[0] + dsl.pid(0), :] = new[dsl.pid(0), :]

    args = (normal(4, 3), jnp.array([2], jnp.int32))
    ir = append.ir(*args, out=dsl.update(normal(9, 3)))

    def device(spoil):
        def run(arrays):
            assert arrays[2] is arrays[3]  # an inout Ref is one buffer
            (found,) = simulate(ir, METAL, emit(ir, METAL), arrays[:3])
            arrays[3][...] = found + spoil

        return lambda inputs, results, _: launch(ir, run, inputs, results)

    assert disagreement(ir, device(0.0)) is None
    assert "self-check failed" in disagreement(ir, device(np.float32(1.0)))
