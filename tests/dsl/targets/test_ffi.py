"""XLA calling Python: buffers, aliases, streams and errors through the real handler, inside jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import METAL
from dsl.lower.c.emit import emit
from dsl.targets import ffi
from dsl.targets.metal.target import host_launch
from dsl.targets.sim.run import simulate

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 7)), jnp.float32)
IR = softmax.ir(X)
FAILURES = (jax.errors.JaxRuntimeError, ValueError)
"""What JAX makes of an error that a handler returns, as the call is dispatched or awaited."""


def calling(run, ir=IR, name="test"):
    return ffi.caller(ir, name, "cpu", ffi.on_host(ir, run))


def test_a_simulated_gpu_program_runs_under_jit_and_vmap():
    run = jax.jit(jax.vmap(lambda x: softmax(jnp.sin(x), backend="sim:cuda")))
    xs = jnp.stack([X, 3 * X])
    np.testing.assert_allclose(run(xs), jax.nn.softmax(jnp.sin(xs)), rtol=1e-5)


def test_five_hundred_calls_within_one_scan():
    small = jnp.ones((1, 4))

    def step(x, _):
        return softmax(x, backend="sim:cuda") * 2.0 - 0.3, None

    found, _ = jax.jit(lambda x: jax.lax.scan(step, x, None, length=500))(small)
    np.testing.assert_allclose(found, np.full((1, 4), 0.2), rtol=1e-5)


def test_what_a_launch_raises_is_raised_from_the_call_and_the_next_call_is_well():
    broken = []

    def run(inputs, outputs):
        if broken:
            raise ValueError("thread 3 left before a barrier")
        outputs[0][...] = inputs[0] + 1

    call = jax.jit(calling(run, name="sometimes"))
    np.testing.assert_array_equal(call(X)[0], X + 1)
    broken.append(True)
    with pytest.raises(FAILURES, match="ValueError: thread 3 left before a barrier"):
        jax.block_until_ready(call(X))
    broken.clear()
    np.testing.assert_array_equal(call(X)[0], X + 1)


def test_a_stream_is_asked_of_xla_which_has_none_on_a_cpu():
    call = jax.jit(ffi.caller(IR, "streaming", "cpu", lambda invocation: print(invocation.stream())))
    with pytest.raises(FAILURES, match=r"HandlerError: .*not available"):
        jax.block_until_ready(call(X))


def test_a_launch_of_another_process_is_an_error_and_no_crash(monkeypatch):
    call = jax.jit(calling(lambda inputs, outputs: None, name="of yesterday")).lower(X).compile()
    monkeypatch.setattr(ffi, "_launches", {})
    with pytest.raises(FAILURES, match="trace it again in this one"):
        jax.block_until_ready(call(X))


@dsl.kernel(grid=lambda new: new.shape[0])
def append(new, at, cache, rows):
    """`rows` counts atomically, so it must begin as zero."""
    cache[at[0] + dsl.pid(0), :] = new[dsl.pid(0), :]
    dsl.atomic_add(rows, 0, 1)


def test_metal_s_launch_on_xla_s_buffers_with_the_simulator_in_the_place_of_the_device():
    """What runs on a Mac but for the device: zeroed outputs, and inout arrays that begin as given."""
    args, cache = (jnp.ones((4, 3), jnp.bfloat16), jnp.array([2], jnp.int32)), jnp.full((9, 3), 5.0)
    out = (dsl.update(cache), dsl.like(cache, shape=(1,), dtype="i32"))
    ir = append.ir(*args, out=out)
    program = emit(ir, METAL)

    def device(arrays):
        updated, counted = simulate(ir, METAL, program, arrays[:3])
        arrays[3][...] = updated
        arrays[4][...] += counted

    call = jax.jit(ffi.caller(ir, "metal", "cpu", host_launch(ir, device)))
    for _ in range(2):
        found, rows = call(*args, cache)
        np.testing.assert_array_equal(found[:, 0], [5, 5, 1, 1, 1, 1, 5, 5, 5])
        assert rows.tolist() == [4]
    np.testing.assert_array_equal(cache, np.full((9, 3), 5.0))
