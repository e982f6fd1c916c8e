import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops import dispatch
from engine.ops.attention import attention, causal_mask


def one_by_one(q, k, v, mask):
    """Each query and head alone, in float64."""
    batch, queries, heads, dim = q.shape
    group = heads // k.shape[2]
    out = np.zeros_like(q, dtype=np.float64)
    for b, t, h in np.ndindex(batch, queries, heads):
        allowed = np.flatnonzero(mask[b, t])
        scores = k[b, allowed, h // group].astype(np.float64) @ q[b, t, h] / np.sqrt(dim)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights / weights.sum() @ v[b, allowed, h // group]
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
def test_attention_equals_each_head_computed_alone(heads, kv_heads):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, 5, heads, 8)).astype(np.float32)
    k, v = rng.standard_normal((2, 2, 5, kv_heads, 8)).astype(np.float32)
    mask = np.broadcast_to(np.tril(np.ones((5, 5), bool)), (2, 5, 5)).copy()
    mask[1, :, 2] &= np.eye(5, dtype=bool)[2]
    got = attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), jnp.asarray(mask))
    np.testing.assert_allclose(got, one_by_one(q, k, v, mask), atol=1e-5)


def test_a_query_that_may_see_nothing_gives_finite_numbers():
    x = jnp.ones((1, 2, 1, 4))
    assert np.isfinite(attention(x, x, x, jnp.zeros((1, 2, 2), bool))).all()


def test_masked_keys_have_no_influence():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((3, 1, 4, 2, 8)).astype(np.float32)
    mask = causal_mask(jnp.arange(4)[None], 4)
    before = attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), mask)
    k[:, 3], v[:, 3] = 1e6, 1e6
    after = attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), mask)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])


def test_causal_mask_follows_the_positions_given():
    mask = causal_mask(jnp.array([[0, 2], [1, 5]]), 4)
    expected = [[[1, 0, 0, 0], [1, 1, 1, 0]], [[1, 1, 0, 0], [1, 1, 1, 1]]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))


def many_keys():
    """As an image of 24 x 25 patches has them: q, k, v (1, 601, 9, 16)."""
    rng = np.random.default_rng(8)
    return [jnp.asarray(rng.standard_normal((1, 601, 9, 16)), jnp.float32) for _ in range(3)]


def test_attention_over_many_keys_is_native_and_equals_the_portable_one():
    q, k, v = many_keys()
    native = jax.jit(lambda *a: attention(*a))(q, k, v)
    scaled = jax.jit(lambda *a: attention(*a, scale=0.5))(q, k, v)
    with dispatch.portable():
        np.testing.assert_allclose(native, attention(q, k, v), atol=2e-5)
        np.testing.assert_allclose(scaled, attention(q, k, v, scale=0.5), atol=2e-5)


def test_only_attention_over_many_keys_without_a_mask_is_native():
    def called(*arguments, **options):
        return "custom_call" in jax.jit(lambda *a: attention(*a, **options)).lower(*arguments).as_text()

    q, k, v = many_keys()
    assert called(q, k, v) == dispatch.native_wanted()
    assert not called(q, k, v, mask=jnp.ones((1, 1, 601), bool)) and not called(q, k, v, softcap=5.0)
    assert not called(q, k[:, :500], v[:, :500]) and not called(q[:, :9], k, v)
    assert not called(*(each.astype(jnp.bfloat16) for each in (q, k, v)))
    with dispatch.portable():
        assert not called(q, k, v)


def test_gradients_of_native_attention_are_the_portable_ones():
    def loss(q, k, v):
        return jnp.sum(attention(q, k, v) ** 2)

    arrays = many_keys()
    found = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
    with dispatch.portable():
        expected = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
