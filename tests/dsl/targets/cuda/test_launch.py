"""The bytes that JAX's CUDA launcher is given, and the call as XLA lowers it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import atomic_add, pid
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import CUDA
from dsl.lower.c.emit import emit
from dsl.runtime import targets
from dsl.runtime.selfcheck import on_device
from dsl.targets.cuda.launch import Launch, caller, launch_of
from dsl.targets.cuda.nvrtc import Binary
from dsl.targets.sim.target import SIM_CUDA

SMALL = Launch("softmax", 4, 0, "PTX", 90, (64, 1, 1), (0, 256))
PLUGIN = (
    # jax_cuda12_plugin._triton 0.10.2 on the same call, by TritonKernelCall.to_proto("softmax", b"")
    "0a2b0a140a07736f66746d617810042203505458305a50011040180120012a040a0210102a070a050880021010"
    "2207736f66746d6178"
)
WITH_CUBIN = (
    # protobuf 7.36 with the schema in jax_cuda12_plugin 0.12.0.1, the first that has the field, on the same
    # call with module_image {object_file: "\x7fELF\0code", kernel_name: "softmax"}
    "0a410a2a0a07736f66746d617810042203505458305a50015a140a097f454c4600636f64651207736f66746d617810401801"
    "20012a040a0210102a070a0508800210102207736f66746d6178"
)
X = jnp.ones((13, 20))


def test_the_encoding_is_that_of_the_plugin():
    assert SMALL.encode().hex() == PLUGIN


def test_machine_code_goes_into_the_field_that_later_plugins_have():
    assert replace(SMALL, cubin=b"\x7fELF\0code").encode().hex() == WITH_CUBIN


@pytest.mark.parametrize("shared", [0, 70_000])
def test_the_encoding_is_that_of_the_installed_plugin(shared):
    triton = pytest.importorskip(
        "jax_cuda12_plugin._triton", reason="compared with recorded bytes: pip install jax-cuda12-plugin"
    )
    mine = Launch("kernel", 8, shared, "p" * 5000, 80, (70_000, 1, 1), (0, 0, 1 << 20))
    kernel = triton.TritonKernel("kernel", 8, 1, shared, "p" * 5000, "", 80)
    arrays = [triton.create_array_parameter(count, 16) for count in mine.zeroed]
    theirs = triton.TritonKernelCall(kernel, 70_000, 1, 1, arrays).to_proto("kernel", b"")
    assert mine.encode() == theirs


def launched(kernel, *args, out=None, **keywords):
    ir = kernel.ir(*args, out=out, **keywords)
    program = emit(ir, CUDA)
    return ir, launch_of(ir, program, Binary("sm_90", ".version 8.0", b"", 0, 0, 0, ""))


def lowered(ir, launch, *arrays):
    traced = jax.jit(caller(ir, launch)).trace(*arrays)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_a_call_lowers_to_one_custom_call_of_the_launcher():
    ir, launch = launched(softmax, X, BM=5)
    assert (launch.name, launch.grid, launch.warps) == ("softmax_kernel", (3, 1, 1), 4)
    text = lowered(ir, launch, X)
    assert text.count("triton_kernel_call_ffi") == 1 and "tensor<13x20xf32>" in text


def test_outputs_that_are_wholly_stored_are_not_zeroed_first():
    assert launched(softmax, X)[1].zeroed == (0, 0)


def test_outputs_of_atomic_adds_are_zeroed_first():
    @dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x, shape=(6,)))
    def histogram(x, o):
        atomic_add(o, x[pid(0)], 1)

    assert launched(histogram, jnp.zeros(9, jnp.int32))[1].zeroed == (0, 24)


def test_an_updated_array_is_passed_as_operand_and_aliased_result():
    @dsl.kernel(grid=lambda new: new.shape[0])
    def append(new, at, cache):
        cache[at[0] + pid(0), :] = new[pid(0), :]

    args = (jnp.ones((4, 3)), jnp.array([5], jnp.int32))
    cache = jnp.zeros((9, 3))
    ir, launch = launched(append, *args, out=dsl.update(cache))
    assert launch.zeroed == (0, 0, 0, 0)
    assert "output_operand_alias" in lowered(ir, launch, *args, cache)
    source = emit(ir, CUDA).source
    assert "cache_ref, float* __restrict__ cache_result" in source


def test_a_wrong_kernel_fails_its_check_while_jax_traces():
    ir = softmax.ir(X)
    run = SIM_CUDA.build(ir)
    device = jax.devices("cpu")[0]
    told = []

    def traced(x):
        told.append(on_device(ir, run, device))
        told.append(on_device(ir, lambda x: (x * 0.5,), device))
        return x

    jax.jit(traced)(X)
    assert told[0] is None and "self-check failed" in told[1]


def test_without_a_gpu_the_target_says_so_and_still_shows_its_source():
    assert "__global__" in softmax.source("cuda", X)
    if jax.default_backend() == "cpu":
        with pytest.raises(dsl.BackendError, match="runs on gpu, not on cpu"):
            softmax(X, backend="cuda")
        assert "no NVIDIA GPU" in targets.target("cuda").refuses(softmax.ir(X))


def test_source_that_cannot_be_made_is_an_error_that_says_why():
    with pytest.raises(dsl.BackendError, match="registers of each of"):
        softmax.source("cuda", np.ones((8, 40_000), np.float32), BM=8)
