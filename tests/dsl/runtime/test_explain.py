"""What `explain` says of resources, and of a backend that this machine cannot run."""

import jax
import jax.numpy as jnp
import pytest

import dsl
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from dsl.targets.cuda import nvrtc

X = jnp.ones((13, 20))
no_gpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="says what is missing without a GPU")


@no_gpu
def test_a_backend_that_cannot_run_is_explained_and_not_an_error():
    told = softmax.explain(X, backend="cuda")
    assert told.backend is None and told.attained is None
    lines = str(told).splitlines()
    assert lines[0].endswith("on cpu: no backend takes it")
    assert lines[1] == "  not on cuda: it runs on gpu, not on cpu"
    with pytest.raises(dsl.BackendError, match="there is no backend 'gpu9'"):
        softmax.explain(X, backend="gpu9")


@no_gpu
@pytest.mark.skipif(not nvrtc.installed(), reason=nvrtc.MISSING)
def test_registers_and_spills_are_known_without_a_gpu():
    told = softmax.explain(X, backend="cuda")
    assert [each.arch for each in told.resources] == ["sm_80", "sm_90"]
    for each in told.resources:
        assert 8 <= each.registers <= 128 and each.spilled == 0 and each.threads % 32 == 0
    assert f"sm_80: {told.resources[0].threads} threads a block" in str(told)
    assert "registers a thread, 0 B of them spilled" in str(told)


@pytest.mark.parametrize("backend", ["sim:cuda", "metal"])
def test_shared_memory_is_known_where_registers_are_not(backend):
    (product,) = matmul.explain(jnp.ones((16, 16)), jnp.ones((16, 16)), backend=backend).resources
    (rows,) = softmax.explain(X, backend=backend).resources
    assert product.registers is None and product.shared > 0 and rows.shared == 0
    assert str(rows) == (
        f"{backend}: {rows.threads} threads a block, 0 B of shared memory, "
        "layout row, 4 warps: no dot takes f16 or bf16"
    )


def test_a_kernel_that_a_target_refuses_takes_nothing():
    wide = jnp.ones((8, 40_000))
    told = softmax.explain(wide, backend="sim:cuda")
    assert told.backend is None and told.resources == () and "registers of each of" in told.skipped[0].reason
