"""Choice of backend, its reasons, the environment's switches, vmap on every backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import BackendError
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from dsl.lower.oracle_target import OracleTarget
from dsl.runtime import targets

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 7)), jnp.float32)


class Picky(OracleTarget):
    """A target that takes matmul only."""

    name = "picky"

    def refuses(self, kernel):
        return None if kernel.name == "matmul" else "it knows matmul alone"


@pytest.fixture
def picky():
    targets.register(Picky(), before_xla_on=("cpu",))
    yield
    targets.unregister("picky")


def test_a_refusal_is_recorded_and_the_next_backend_runs(picky):
    told = softmax.explain(X)
    assert told.backend == "xla"
    assert [(each.backend, each.reason) for each in told.skipped] == [("picky", "it knows matmul alone")]
    assert "not on picky: it knows matmul alone" in str(told)
    assert matmul.explain(X, X.T).backend == "picky"
    np.testing.assert_allclose(softmax(X), jax.nn.softmax(X), rtol=1e-5)


def test_a_forced_backend_that_refuses_is_an_error(picky):
    with pytest.raises(BackendError, match="knows matmul alone"):
        softmax(X, backend="picky")
    with pytest.raises(BackendError, match="there is no backend 'gpu9'"):
        softmax(X, backend="gpu9")


class Elsewhere(OracleTarget):
    """A target of another platform, which it only seems to be here."""

    name = "elsewhere"
    platforms = ("gpu",)


def test_a_forced_backend_need_not_run_on_the_host_too(monkeypatch):
    targets.register(Elsewhere())
    try:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        np.testing.assert_allclose(softmax(X, backend="elsewhere"), jax.nn.softmax(X), rtol=1e-5)
        with (
            jax.default_device(jax.devices("cpu")[0]),
            pytest.raises(BackendError, match="it runs on gpu, not on cpu"),
        ):
            softmax(X, backend="elsewhere")
    finally:
        targets.unregister("elsewhere")


def test_the_environment_forces_a_backend_and_prints(monkeypatch, capsys):
    monkeypatch.setenv("TARSIA_DSL_BACKEND", "oracle")
    monkeypatch.setenv("TARSIA_DSL_PRINT", "ir, explain")
    odd = jnp.ones((3, 11))
    assert softmax.explain(odd).backend == "oracle"
    softmax(odd)
    softmax(odd)
    printed = capsys.readouterr().err
    assert printed.count("kernel softmax grid(1)") == 1
    assert "softmax: runs on oracle" in printed


def test_sources_can_be_read():
    assert "reduce_max" in softmax.source("xla", X)
    assert softmax.source("oracle", X) == str(softmax.ir(X))


@pytest.mark.parametrize("backend", ["xla", "oracle"])
def test_vmap_nests_and_leaves_unbatched_arguments_alone(backend):
    a = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 5, 7)), jnp.float32)
    b = jnp.asarray(np.random.default_rng(2).standard_normal((3, 7, 4)), jnp.float32)
    twice = jax.vmap(jax.vmap(lambda a, b: matmul(a, b, backend=backend)), in_axes=(0, None))
    np.testing.assert_allclose(jax.jit(twice)(a, b), a @ b, rtol=1e-4, atol=1e-5)


def test_vmap_of_an_updated_output():
    @dsl.kernel(grid=1)
    def put(new, at, cache):
        cache[at[0], :] = new[:]

    cache, rows, at = jnp.zeros((4, 3)), jnp.ones((2, 3)), jnp.array([[1], [3]], jnp.int32)
    found = jax.vmap(lambda new, at: put(new, at, out=dsl.update(cache)))(rows, at)
    np.testing.assert_array_equal(found.sum(2), [[0, 3, 0, 0], [0, 0, 0, 3]])


@pytest.mark.parametrize("order", ["grad of vmap", "vmap of grad"])
def test_grad_and_vmap_compose(order):
    xs = jnp.stack([X, 2 * X])

    def loss(function, x):
        return (function(x) ** 3).sum()

    def total(function):
        if order == "grad of vmap":
            return jax.grad(lambda xs: jax.vmap(lambda x: loss(function, x))(xs).sum())(xs)
        return jax.vmap(jax.grad(lambda x: loss(function, x)))(xs)

    np.testing.assert_allclose(total(softmax), total(jax.nn.softmax), rtol=1e-4, atol=1e-6)
