"""What the simulator must see: programs written by hand that break one rule each."""

import dataclasses

import numpy as np
import pytest

from dsl.ir.ops import Kernel
from dsl.ir.types import RefType
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from dsl.targets.sim.build import BuildError
from dsl.targets.sim.run import Caught, simulate
from tests.dsl.kernels.catalogue import CASES, specialised

N = 64
X, OUT = RefType("x", "f32", (N,)), RefType("o", "f32", (N,), "out")
SOUND = {
    CUDA: "__shared__ float pool[64]; int n = threadIdx.x; pool[n] = x_ref[n]; __syncthreads(); "
    "o_ref[n] = pool[63 - n];",
    METAL: "threadgroup float pool[64]; int n = warp * 32 + lane; pool[n] = x_ref[n]; "
    "threadgroup_barrier(mem_flags::mem_threadgroup); o_ref[n] = pool[63 - n];",
}
BROKEN = {
    "no barrier": ("__syncthreads();", "", "race on shared element"),
    "divergent barrier": ("__syncthreads();", "if (n < 32) __syncthreads();", "barrier"),
    "two barriers": (
        "__syncthreads();",
        "if (n < 32) { __syncthreads(); }\n else __syncthreads();",
        "diverg",
    ),
    "early exit": ("__syncthreads();", "if (n > 40) return; __syncthreads();", "left before a barrier"),
    "divergent shuffle": (
        "__syncthreads();",
        "if (n > 3) pool[n] = __shfl_xor_sync(0xffffffffu, 1.0f, 1); __syncthreads();",
        "divergent warp operation",
    ),
    "shuffle beyond the warp": (
        "__syncthreads();",
        "pool[n] = __shfl_xor_sync(0xffffffffu, 1.0f, 32); __syncthreads();",
        "outside of the warp",
    ),
    "shuffle of half a warp": (
        "__syncthreads();",
        "pool[n] = __shfl_xor_sync(0xffffu, 1.0f, 1); __syncthreads();",
        "outside of the warp",
    ),
    "read past the end": ("x_ref[n]", "x_ref[n + 1]", "x has 64 elements and 64 is touched"),
    "read before the beginning": ("x_ref[n]", "x_ref[n - 1]", "x has 64 elements and -1 is touched"),
    "write past the end": ("o_ref[n]", "o_ref[n + 1]", "o has 64 elements and 64 is touched"),
    "write to an input": ("o_ref[n]", "((float*)x_ref)[n]", "write to x, an input"),
    "shared memory past the end": ("pool[63 - n]", "pool[64 - n]", "shared memory has 64 elements and 64"),
}


def written(dialect, body, blocks=1):
    """A program of two warps from the text of its body, and its kernel's signature."""
    ir = Kernel("written", (X, OUT), (blocks,), ())
    named = [(ref, f"{ref.name}_ref") for ref in ir.refs]
    head = dialect.prologue + dialect.signature("written_kernel", named, N)
    source = head + body.replace(";", ";\n") + "\n}\n"
    program = dataclasses.replace(
        emit(specialised(CASES["softmax"])[0], dialect),
        source=source,
        entry="written_kernel",
        parameters=ir.refs,
        blocks=blocks,
        threads=N,
    )
    return ir, program


def run(dialect, body, orders=range(4), blocks=1):
    ir, program = written(dialect, body, blocks)
    return simulate(ir, dialect, program, [np.arange(N, dtype=np.float32)], orders)[0]


@pytest.mark.parametrize("dialect", SOUND, ids=lambda d: d.name)
def test_a_sound_program_runs(dialect):
    np.testing.assert_array_equal(run(dialect, SOUND[dialect]), np.arange(N)[::-1])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_is_caught(name):
    old, new, told = BROKEN[name]
    assert old in SOUND[CUDA]
    with pytest.raises(Caught, match=told):
        run(CUDA, SOUND[CUDA].replace(old, new))


def test_a_race_is_caught_whatever_the_schedule():
    for order in range(4):
        with pytest.raises(Caught, match="race"):
            run(CUDA, SOUND[CUDA].replace("__syncthreads();", ""), [order])


def test_two_programs_that_write_one_element_are_caught_though_the_values_agree():
    with pytest.raises(Caught, match="program 1, thread 0 writes element 0 of o, which program 0, thread 0"):
        run(CUDA, SOUND[CUDA], [0], blocks=2)


@pytest.mark.parametrize("dialect", SOUND, ids=lambda d: d.name)
def test_two_threads_that_write_one_element_are_caught_though_the_values_agree(dialect):
    with pytest.raises(Caught, match="program 0, thread 32 writes element 0 of o, which program 0, thread 0"):
        run(dialect, SOUND[dialect].replace("o_ref[n] = pool[63 - n]", "o_ref[n % 32] = 1.0f"), [0])


def test_a_message_of_the_compiler_comes_with_the_line():
    with pytest.raises(BuildError, match=r"nonsense.* in: nonsense"):
        run(CUDA, "nonsense = 1;")


def test_results_that_depend_on_the_schedule_are_caught():
    body = "static int order; int n = threadIdx.x; if (n % 35 == 5) o_ref[n] = (float)++order;"
    with pytest.raises(Caught, match="differs between schedules"):
        run(CUDA, body, range(8))


@pytest.mark.parametrize("name", ["softmax", "matmul", "flash_attention"])
def test_library_kernels_are_deterministic(name):
    ir, arrays = specialised(CASES[name])
    found = [simulate(ir, CUDA, emit(ir, CUDA), arrays, (order,))[0] for order in range(3)]
    assert all(np.array_equal(found[0], other) for other in found)
