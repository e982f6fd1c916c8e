"""Each kernel of the catalogue: gradients, batches, and its edges. Its values are in test_targets.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsl import KernelError
from dsl.kernels.attention import flash_attention, ragged_attention
from dsl.kernels.decode import decode_attention, kv_append
from dsl.kernels.distance import distance, nearest
from dsl.kernels.matmul import matmul_bias
from dsl.kernels.quant_matmul import int8_matmul
from dsl.kernels.rope import rope
from dsl.kernels.round8 import round_to_int8
from dsl.lang.arguments import update
from tests.dsl.kernels.catalogue import CASES, at_its_own_sizes, normal

ONE_OF_A_KIND = (
    "softmax",
    "swiglu",
    "add_rms_norm",
    "matmul_bias gelu",
    "batched_matmul",
    "gemv",
    "int4_matmul",
    "flash_attention windowed",
    "ragged_attention windowed",
    "decode_attention windowed",
    "kv_append",
    "rope",
    "round_to_int8",
    "distance cosine",
    "hamming",
    "nearest",
    "int8_linear",
    "int4_linear",
)
"""They stand for the others where a compilation each would be slow."""
COVERED = {"ragged_attention", "decode_attention", *(f"matmul_bias {a}" for a in ("none", "relu", "silu"))}
DIFFERENTIABLE = [name for name, case in CASES.items() if case.differentiable and name not in COVERED]


def tupled(found):
    return found if isinstance(found, tuple) else (found,)


def both(f, g):
    """Two functions of the same arguments, compiled at once, which is faster than twice."""
    return jax.jit(lambda *args: (f(*args), g(*args)))


def same(found, expected, tolerance=3e-5):
    for mine, theirs in zip(tupled(found), tupled(expected), strict=True):
        assert mine.shape == theirs.shape
        mine, theirs = (np.asarray(x, np.float64) for x in (mine, theirs))
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def total(f):
    """A scalar that depends on every element of every output, each in its own way."""

    def loss(*args):
        return sum((jnp.sin(jnp.arange(x.size)).reshape(x.shape) * x).sum() for x in tupled(f(*args)))

    return loss


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_plain_expression(name):
    case, args = CASES[name], CASES[name].args()
    wrt = tuple(n for n, x in enumerate(args) if x.dtype == jnp.float32)
    kernel = case.kernel if name == "decode_attention windowed" else at_its_own_sizes(case.kernel)
    gradients = both(jax.grad(total(kernel), wrt), jax.grad(total(case.plain), wrt))
    same(*gradients(*args), 2e-4)


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_vmap_is_the_plain_expression_on_each(name):
    """The first argument is batched and the others are shared."""
    case, (first, *rest) = CASES[name], CASES[name].args()
    batch = jnp.stack([first, jnp.flip(first, 0)])

    def over(f):
        return jax.vmap(lambda x: f(x, *rest))

    same(*both(over(case.kernel), over(case.plain))(batch))


def test_equal_scores_come_in_order_of_id_and_missing_ones_as_minus_one():
    vectors = jnp.ones((5, 4)).at[3].set(2.0)
    scores, ids = nearest(jnp.ones((1, 4)), vectors, k=7, metric="dot", BN=2)
    np.testing.assert_array_equal(ids[0], [3, 0, 1, 2, 4, -1, -1])
    np.testing.assert_array_equal(scores[0, :5], [8, 4, 4, 4, 4])


def test_vectors_of_zeros_score_zero_by_cosine():
    np.testing.assert_array_equal(distance(jnp.zeros((1, 3)), jnp.ones((2, 3)), metric="cosine"), [[0, 0]])


def test_rounding_to_int8_reaches_127_and_keeps_zeros():
    x = jnp.concatenate([normal(3, 32) * 1e4, jnp.zeros((3, 32))], 1)
    rounded, scale = round_to_int8(x)
    assert rounded.dtype == jnp.int8
    np.testing.assert_array_equal(jnp.abs(rounded[:, :32].astype(jnp.int32)).max(1), 127)
    np.testing.assert_array_equal(scale[:, 1], 0)
    assert (np.abs(x[:, :32] - rounded[:, :32] * scale[:, :1]) <= scale[:, :1] * 0.5001).all()


def test_appending_beyond_the_cache_drops_what_does_not_fit():
    cache = kv_append(jnp.ones((1, 1, 3, 2)), jnp.asarray([3]), out=update(jnp.zeros((1, 1, 4, 2))))
    np.testing.assert_array_equal(cache[0, 0, :, 0], [0, 0, 0, 1])


def test_slots_beyond_the_length_never_matter():
    q, k, v = normal(1, 2, 8), normal(1, 2, 16, 8, seed=1), normal(1, 2, 16, 8, seed=2)
    lengths = jnp.asarray([9], jnp.int32)
    step = jax.jit(partial(decode_attention, BN=4))
    clean = step(q, k, v, lengths)
    spoiled = step(q, k.at[:, :, 9:].set(50.0), v.at[:, :, 9:].set(1e6), lengths)
    np.testing.assert_array_equal(clean, spoiled)


X = normal(2, 2, 8, 6)
REFUSALS = {
    "activation": (
        lambda: matmul_bias(X[0, 0], X[0, 0].T, X[0, 0, :, 0], activation="selu"),
        "no activation",
    ),
    "metric": (lambda: distance(X[0, 0], X[0, 0], metric="hamming"), "no metric 'hamming'"),
    "odd head": (lambda: rope(X[..., :5], X[:, 0, :, :2], X[:, 0, :, :2]), "5 elements"),
    "groups of weights": (
        lambda: int8_matmul(X[0, 0], X[0, 0].astype(jnp.int8), X[0, 0]),
        "groups are of 32 columns and w has 6",
    ),
    "groups": (lambda: round_to_int8(X[0, 0]), "groups are of 32 columns and x has 6"),
    "window": (lambda: flash_attention(X, X, X, window=0), "number of keys >= 1"),
    "looking ahead": (
        lambda: ragged_attention(X, X, X, jnp.asarray([8, 8]), causal=False, window=3),
        "needs causal=True",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_kernel_cannot_do_is_said(name):
    call, message = REFUSALS[name]
    with pytest.raises(KernelError, match=message):
        call()
