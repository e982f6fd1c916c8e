"""The library on an NVIDIA GPU, against the float64 oracle; skipped where JAX has none.

Run: `XLA_PYTHON_CLIENT_PREALLOCATE=false python -m pytest -n 8 tests/dsl/targets/cuda/test_on_gpu.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsl import update
from dsl.kernels.attention import flash_attention
from dsl.kernels.decode import kv_append
from dsl.kernels.matmul import matmul
from dsl.kernels.norm import rms_norm
from dsl.kernels.softmax import softmax
from tests.dsl.kernels.catalogue import CASES, normal
from tests.dsl.kernels.errors import TOLERANCE, error
from tests.dsl.test_strangers import STRANGERS


def has_gpu():
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


pytestmark = pytest.mark.skipif(not has_gpu(), reason="JAX has no NVIDIA GPU here")
NARROW = [(name, dtype) for name, case in CASES.items() if case.narrow for dtype in ("f16", "bf16")]
SAMPLE = ("softmax", "matmul", "flash_attention", "kv_append", "int4_linear", "nearest")


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_agrees_with_the_oracle(name):
    assert error(name, "cuda") < TOLERANCE["f32"]


@pytest.mark.parametrize(("name", "dtype"), NARROW)
def test_narrow_storage_is_rounded_once(name, dtype):
    assert error(name, "cuda", dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ("f32", "f16"))
@pytest.mark.parametrize("name", SAMPLE)
def test_the_driver_launches_as_well(name, dtype, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CUDA_LAUNCHER", "driver")
    if dtype == "f32" or CASES[name].narrow:
        assert error(name, "cuda", dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize("columns", (33, 1024, 1536, 2048, 5000, 8192, 20000))
@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_rows_of_any_length(columns, dtype):
    x, w = normal(5, columns).astype(dtype), normal(columns, seed=1).astype(dtype)
    wide = np.asarray(x, np.float64)
    shares = np.exp(wide - wide.max(1, keepdims=True))
    normed = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-6) * np.asarray(w, np.float64)
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(
        np.asarray(softmax(x, backend="cuda"), np.float64),
        shares / shares.sum(1, keepdims=True),
        rtol=tolerance,
    )
    found = np.asarray(rms_norm(x, w, backend="cuda"), np.float64)
    np.testing.assert_allclose(found, normed, rtol=tolerance, atol=tolerance)


def test_kernels_of_one_program_run_in_order_and_in_a_scan():
    x, w = normal(64, 64), normal(64, 64, seed=1) * 0.1

    def layer(run):
        def step(h, _):
            return run(h), None

        return jax.jit(lambda x: jax.lax.scan(step, x, None, length=20)[0])

    mine = layer(lambda h: softmax(matmul(h, w, backend="cuda") + h, backend="cuda"))(x)
    with jax.default_matmul_precision("highest"):
        plain = layer(lambda h: jax.nn.softmax(h @ w + h))(x)
    np.testing.assert_allclose(mine, plain, atol=1e-5)


@pytest.mark.parametrize("name", STRANGERS)
def test_what_strangers_write(name):
    """The histogram's output begins as zeros that atomics add to."""
    kernel, args, expected = STRANGERS[name]()
    for _ in range(3):
        found = jax.jit(lambda *a: kernel(*a, backend="cuda"))(*map(jnp.asarray, args))
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_an_updated_array_is_updated_in_place():
    cache = jnp.zeros((1, 1, 8, 4))
    step = jax.jit(
        lambda cache, at: kv_append(jnp.ones((1, 1, 2, 4)), at, out=update(cache), backend="cuda"),
        donate_argnums=0,
    )
    for at in (0, 4):
        cache = step(cache, jnp.asarray([at], jnp.int32))
    np.testing.assert_array_equal(cache[0, 0, :, 0], [1, 1, 0, 0, 1, 1, 0, 0])


def test_gradients_and_batches():
    q, k, v = (normal(1, 2, 48, 32, seed=n) for n in range(3))

    def plain(q, k, v):
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, precision="highest") * 32**-0.5
        scores = jnp.where(jnp.tril(jnp.ones((48, 48), bool)), scores, -1e30)
        return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), v, precision="highest")

    def total(f):
        return jax.grad(lambda *args: (f(*args) ** 2).sum(), (0, 1, 2))

    with jax.default_matmul_precision("highest"):
        mine = total(lambda *args: flash_attention(*args, backend="cuda"))(q, k, v)
        for found, expected in zip(mine, total(plain)(q, k, v), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-4)
    batch = jnp.stack([normal(9, 40), normal(9, 40, seed=1)])
    np.testing.assert_allclose(
        jax.vmap(lambda x: softmax(x, backend="cuda"))(batch), jax.nn.softmax(batch), atol=1e-6
    )
