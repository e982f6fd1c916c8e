"""Each kernel of the library against dense NumPy in float64, on every backend, at odd and ragged sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl.kernels.attention import flash_attention
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from tests.dsl.kernels.matvec import int4_matvec

BACKENDS = ("xla", "oracle")
TOLERANCE = {jnp.float32: 3e-5, jnp.float16: 4e-3, jnp.bfloat16: 3e-2}
DTYPES = list(TOLERANCE)


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def f64(*arrays):
    return [np.asarray(x.astype(jnp.float32), np.float64) for x in arrays]


def close(found, expected, dtype=jnp.float32):
    np.testing.assert_allclose(*f64(found), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def dense_softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense_attention(q, k, v, causal):
    q, k, v = f64(q, k, v)
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, 1), np.repeat(v, repeats, 1)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if causal:
        allowed = np.tril(np.ones(scores.shape[-2:], bool), scores.shape[-1] - scores.shape[-2])
        scores = np.where(allowed, scores, -np.inf)
    return dense_softmax(scores) @ v


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (37, 20), (8, 65)])
def test_softmax(shape, dtype, backend):
    x = normal(*shape, dtype=dtype) * 3
    found = softmax(x, backend=backend, BM=5)
    assert found.dtype == dtype
    close(found, dense_softmax(*f64(x)), dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (17, 45, 23), (32, 64, 32)])
def test_matmul(m, k, n, dtype, backend):
    a, b = normal(m, k, dtype=dtype), normal(k, n, seed=1, dtype=dtype)
    expected = np.matmul(*f64(a, b))
    found = matmul(a, b, out=dsl.like(a, shape=(m, n), dtype="f32"), backend=backend, BM=16, BN=16, BK=16)
    close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(1, 37), (20, 45)])
def test_attention_with_grouped_queries(queries, keys, causal, backend):
    q, k, v = normal(2, 4, queries, 8), normal(2, 2, keys, 8, seed=1), normal(2, 2, keys, 8, seed=2)
    expected = dense_attention(q, k, v, causal)
    close(flash_attention(q, k, v, causal=causal, backend=backend, BM=16, BN=16), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_narrow_storage_at_the_tuned_sizes(dtype):
    q, k, v = (normal(1, 2, 40, 16, seed=n, dtype=dtype) for n in range(3))
    close(flash_attention(q, k, v), dense_attention(q, k, v, True), dtype)


def quantised(out, features):
    rng = np.random.default_rng(5)
    data = rng.integers(0, 256, (out, features // 2), dtype=np.uint8)
    groups = data.reshape(out, -1, 16).astype(np.float64)
    wide = np.concatenate([groups % 16, groups // 16], -1)
    scale, minimum = (rng.standard_normal((out, features // 32)).astype(np.float32) for _ in range(2))
    dense = (wide * scale[..., None] + minimum[..., None]).reshape(out, features)
    return dsl.Packed(jnp.asarray(data), "u4"), jnp.asarray(scale), jnp.asarray(minimum), dense


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("out", "features"), [(1, 32), (41, 96), (64, 256)])
def test_int4_matvec(out, features, backend):
    w, scale, minimum, dense = quantised(out, features)
    x = normal(1, features) * 0.1
    found = int4_matvec(x, w, scale, minimum, backend=backend)
    np.testing.assert_allclose(found[:, 0], dense @ f64(x)[0][0], rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_plain_expressions():
    w, scale, minimum, dense = quantised(9, 64)
    x = normal(1, 64)
    weight = jnp.asarray(dense, jnp.float32)
    pairs = [
        (softmax, lambda x: jax.nn.softmax(x), (normal(7, 5),)),
        (matmul, jnp.matmul, (normal(5, 6), normal(6, 7))),
        (lambda x: int4_matvec(x, w, scale, minimum), lambda x: (weight @ x[0])[:, None], (x,)),
    ]
    for kernel, plain, args in pairs:
        weights = normal(*plain(*args).shape, seed=9)
        where = tuple(range(len(args)))
        found = jax.jit(jax.grad(lambda *a, f=kernel, w=weights: (f(*a) * w).sum(), where))(*args)
        expected = jax.grad(lambda *a, f=plain, w=weights: (f(*a) * w).sum(), where)(*args)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("tiles", [{}, {"BM": 8, "BN": 8}])
def test_the_gradient_of_causal_attention(tiles):
    q, k, v = (normal(1, 1, 11, 4, seed=n) for n in range(3))

    def plain(q, k, v):
        scores = jnp.einsum("bhid,bhjd->bhij", q, k) * 4**-0.5
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
        return jax.nn.softmax(scores) @ v

    found = jax.jit(jax.grad(lambda *a: (flash_attention(*a, **tiles) ** 2).sum(), (0, 1, 2)))(q, k, v)
    expected = jax.grad(lambda *a: (plain(*a) ** 2).sum(), (0, 1, 2))(q, k, v)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
