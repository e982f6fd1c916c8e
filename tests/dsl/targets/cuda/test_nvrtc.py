"""Generated CUDA C++ through NVIDIA's compiler, which needs no GPU."""

import jax.numpy as jnp
import pytest

import dsl
from dsl import atomic_add, pid, where
from dsl.kernels.softmax import softmax
from dsl.targets.cuda import nvrtc
from dsl.targets.cuda.library import compiled
from tests.dsl.targets.sim.cases import CASES, normal, packed, prepared

pytestmark = pytest.mark.skipif(not nvrtc.installed(), reason=nvrtc.MISSING)
ARCHITECTURES = ("sm_80", "sm_90")


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", CASES)
def test_library_kernels_compile_without_spilling(name, arch):
    program, binary = compiled(prepared(*CASES[name])[0], arch)
    assert 0 < binary.registers <= 128 and binary.spilled == 0
    assert binary.shared == program.shared_bytes
    assert f".target {arch}" in binary.ptx and f".entry {program.entry}(" in binary.ptx
    assert binary.cubin.startswith(b"\x7fELF")


@dsl.kernel(grid=2, out=lambda x, i, w: [dsl.like(x, dtype="f32"), dsl.like(i), dsl.like(x, dtype="i8")])
def every_function(x, i, w, o, m, narrow):
    t = x[pid(0), :].f32
    size = dsl.abs_(t) + 1.0
    t = dsl.erf(t) + dsl.tanh(t) + dsl.log(size) + dsl.sqrt(size) + dsl.rsqrt(size) + dsl.exp(t)
    atomic_add(o, (pid(0), slice(None)), dsl.round_(t) + t.max(1) + w[pid(0), 0:8].f32.min(1))
    n = i[:]
    n = (
        where(n >= 3, n // 3, dsl.abs_(n % 7))
        + dsl.popcount(n)
        + (n >> 1) * 5
        + (n ^ 3)
        + t.i32.max(0).sum(1)
    )
    atomic_add(m, slice(None), n)
    narrow[pid(0), :] = t.i32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_every_function_and_storage_dtype_compiles(dtype):
    x, i = normal(2, 8, dtype=dtype), jnp.arange(8, dtype=jnp.int32)
    binary = compiled(every_function.ir(x, i, packed(2, 16)), "sm_80")[1]
    assert binary.spilled == 0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_floats_need_no_headers(dtype):
    binary = compiled(softmax.ir(normal(9, 70, dtype=dtype)), "sm_80")[1]
    assert ".rn.f16.f32" in binary.ptx or ".rn.bf16.f32" in binary.ptx


def test_an_error_of_the_compiler_comes_with_the_line():
    with pytest.raises(nvrtc.CompileError, match=r"identifier .* is undefined in: nonsense = 1;"):
        nvrtc.compile_source("__global__ void f() {\n  nonsense = 1;\n}\n", "sm_80")
