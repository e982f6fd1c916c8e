"""The second launcher: what it passes to the driver, by a stand-in for libcuda; and when it is used."""

import ctypes
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import CUDA
from dsl.lower.c.emit import emit
from dsl.targets.cuda import launch, nvrtc, target
from dsl.targets.cuda.driver import Driver, DriverError, Loaded
from dsl.targets.cuda.launch import launch_of
from dsl.targets.cuda.nvrtc import Binary
from dsl.targets.ffi import view
from dsl.targets.sim.build import compiler
from dsl.targets.sim.run import simulate
from tests.dsl.targets.test_ffi import append

STREAM = 0x7F0000001234
CUBIN = b"\x7fELF\0code"
SOFTMAX = softmax.ir(jnp.ones((5, 7)))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    found = compiler()
    if found is None:
        pytest.skip("the stand-in for libcuda needs a C++ compiler")
    path = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    source = Path(__file__).with_name("stand_in.c")
    subprocess.run([found, "-x", "c++", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


def appended():
    args, cache = (jnp.ones((4, 3), jnp.bfloat16), jnp.array([2], jnp.int32)), jnp.full((9, 3), 5.0)
    out = (dsl.update(cache), dsl.like(cache, shape=(1,), dtype="i32"))
    ir = append.ir(*args, out=out)
    binary = Binary("sm_90", ".version 8.0", CUBIN, 0, 0, 0, "")
    program = emit(ir, CUDA)
    described = launch_of(ir, program, binary)
    memory = [np.array(x) for x in (*args, cache)]
    memory += [memory[2], np.full(1, 99, np.int32)]
    return ir, program, target.replace(described, cubin=CUBIN), memory


def test_a_launch_goes_through_the_driver_s_own_prototypes(stand_in):
    """From device addresses to the kernel: the stand-in's device runs the simulated CUDA program."""
    ir, program, described, memory = appended()
    native = ctypes.CDLL(str(stand_in))
    ctypes.c_int.in_dll(native, "parameters").value = 5
    refs = [*ir.inputs, *ir.outputs]

    def device(values):
        views = [view(values[n], ref.shape, ref) for n, ref in enumerate(refs)]
        updated, counted = simulate(ir, CUDA, program, views[:3])
        views[3][...] = updated
        views[4][...] += counted

    callback = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint64))(device)
    ctypes.c_void_p.in_dll(native, "launched").value = ctypes.cast(callback, ctypes.c_void_p).value
    loaded = Loaded(Driver(str(stand_in)), described)
    for _ in range(2):
        memory[2][...] = 5
        loaded(STREAM, [x.ctypes.data for x in memory])
        np.testing.assert_array_equal(memory[3][:, 0], [5, 5, 1, 1, 1, 1, 5, 5, 5])
        assert memory[4].tolist() == [4]  # it was 99 or 4 before, and was zeroed on the stream
    assert ctypes.c_int.in_dll(native, "loads").value == 1
    grid_and_block = list((ctypes.c_uint * 7).in_dll(native, "noted"))
    assert grid_and_block == [4, 1, 1, program.threads, 1, 1, 0]
    ctypes.c_void_p.in_dll(native, "launched").value = None
    with pytest.raises(DriverError, match=r"cuLaunchKernel: an illegal memory access .* \(700\)"):
        loaded(STREAM, [x.ctypes.data for x in memory])
    with pytest.raises(DriverError, match="cuStreamGetCtx: invalid argument"):
        loaded(12, [x.ctypes.data for x in memory])


def test_without_a_driver_the_error_says_what_is_missing():
    with pytest.raises(dsl.BackendError, match=r"driver library cannot be loaded: .*no_such_cuda"):
        Driver("no_such_cuda.so.1")


def test_the_environment_chooses_the_launcher(monkeypatch):
    monkeypatch.delenv("TARSIA_DSL_CUDA_LAUNCHER", raising=False)
    assert target.launchers() == (target.LAUNCHERS if launch.registered() else ("driver",))
    monkeypatch.setenv("TARSIA_DSL_CUDA_LAUNCHER", "driver")
    assert target.launchers() == ("driver",)
    monkeypatch.setenv("TARSIA_DSL_CUDA_LAUNCHER", "nvlaunch")
    with pytest.raises(dsl.BackendError, match="it may be plugin or driver"):
        target.launchers()


def test_the_call_by_the_driver_lowers_for_cuda_without_a_gpu(stand_in, monkeypatch):
    monkeypatch.setattr(target.driver, "driver", lambda: Driver(str(stand_in)))
    binary = Binary("sm_90", ".version 8.0", CUBIN, 0, 0, 0, "")
    call = target.caller(SOFTMAX, emit(SOFTMAX, CUDA), binary, "driver")
    traced = jax.jit(call).trace(jnp.ones((5, 7)))
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("tarsia_dsl_python_cuda") == 1


@pytest.mark.skipif(not nvrtc.installed(), reason=nvrtc.MISSING)
@pytest.mark.parametrize(("jaxlib", "sent"), [((0, 10, 2), None), ((0, 12, 0), CUBIN)])
def test_ptx_that_xla_could_not_read_is_replaced_by_machine_code(monkeypatch, jaxlib, sent):
    """`ptxas` older than NVRTC: the launcher gets the cubin, or, where it cannot take one, is passed over."""
    monkeypatch.setattr(launch, "_installed", lambda name: (12, 0))
    monkeypatch.setattr(target.jaxlib_version, "__version_info__", jaxlib)
    binary = Binary("sm_90", ".version 8.8", CUBIN, 0, 0, 0, "")
    given = []
    monkeypatch.setattr(launch, "caller", lambda kernel, described: given.append(described))
    if sent is None:
        with pytest.raises(dsl.BackendError, match="newer than XLA's ptxas"):
            target.caller(SOFTMAX, emit(SOFTMAX, CUDA), binary, "plugin")
    else:
        target.caller(SOFTMAX, emit(SOFTMAX, CUDA), binary, "plugin")
        assert given[0].cubin == sent and b"\x5a" in given[0].encode()
