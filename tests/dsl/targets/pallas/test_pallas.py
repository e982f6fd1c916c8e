"""Pallas: interpreted, every kernel agrees; lowered for CUDA without a GPU, or refused with the reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import BackendError, atomic_add, pid, tile
from dsl.kernels.activation import gelu
from dsl.kernels.attention import flash_attention
from dsl.kernels.decode import decode_attention, kv_append
from dsl.kernels.distance import hamming, nearest
from dsl.kernels.matmul import matmul
from dsl.kernels.norm import layer_norm
from dsl.kernels.round8 import round_to_int8
from dsl.kernels.softmax import softmax
from dsl.targets.pallas import target
from dsl.targets.pallas.call import erf_by_polynomial, round_by_adding
from tests.dsl.kernels.matvec import int4_matvec


@pytest.mark.parametrize("at", [0, 3, 9, -2, 40, -40])
def test_a_window_that_starts_at_data_is_guarded(at):
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(4, 3)))
    def cut(x, where_, o):
        o[:, :] = x.load((tile(where_[0], 4), slice(None)), other=7.0)

    args = jnp.arange(33.0).reshape(11, 3), jnp.array([at], jnp.int32)
    np.testing.assert_array_equal(cut(*args, backend="pallas"), cut(*args, backend="oracle"))


def test_nibbles_and_atomic_adds():
    rng = np.random.default_rng(0)
    w = dsl.Packed(jnp.asarray(rng.integers(0, 256, (9, 32), dtype=np.uint8)), "u4")
    scale, minimum = (jnp.asarray(rng.standard_normal((9, 2)), jnp.float32) for _ in range(2))
    x = jnp.asarray(rng.standard_normal((1, 64)), jnp.float32)
    found = (int4_matvec(x, w, scale, minimum, backend=name) for name in ("pallas", "oracle"))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)

    @dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x, shape=(6,)))
    def histogram(x, o):
        atomic_add(o, x[pid(0)], 1)

    counted = histogram(jnp.asarray([0, 5, 5, 2, 9, -1], jnp.int32), backend="pallas")
    np.testing.assert_array_equal(counted, [1, 0, 1, 0, 0, 2])


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


HEADS = shape(1, 4, 64, 32, dtype=jnp.float16)
CACHE, LENGTH = shape(1, 2, 64, 32), shape(1, dtype=jnp.int32)
BYTES = shape(64, 16, dtype=jnp.uint8)
OTHER_JAX = jax.__version_info__[:2] != (0, 10)
"""Newer versions are refused for CUDA until they are tested."""
LOWERED = {
    "ragged softmax": lambda: softmax.ir(shape(61, 128)),
    "gelu": lambda: gelu.ir(shape(64, 128)),
    "layer_norm": lambda: layer_norm.ir(shape(64, 128), shape(128), shape(128)),
    "matmul": lambda: matmul.ir(shape(64, 64), shape(64, 64)),
    "flash_attention": lambda: flash_attention.ir(HEADS, HEADS, HEADS),
    "decode_attention": lambda: decode_attention.ir(shape(1, 32, 32), CACHE, CACHE, LENGTH),
    "kv_append": lambda: kv_append.ir(shape(1, 2, 4, 32), LENGTH, out=dsl.update(CACHE)),
    "round_to_int8": lambda: round_to_int8.ir(shape(64, 128)),
    "hamming": lambda: hamming.ir(BYTES, BYTES),
    "nearest": lambda: nearest.ir(shape(16, 128), shape(64, 128), k=8, BM=16),
}


@pytest.mark.parametrize("name", LOWERED)
def test_kernels_become_one_triton_call_without_a_gpu(name):
    if OTHER_JAX:
        assert "was tested with JAX 0.10" in target.triton_refuses(LOWERED[name]())
        return
    assert target.triton_lowering(LOWERED[name]()).count("__gpu$xla.gpu.triton") == 1


def test_lengths_that_triton_cannot_take_are_refused():
    reason = target.triton_refuses(softmax.ir(shape(64, 384)))
    assert ("was tested with" if OTHER_JAX else "shape (8, 384)") in reason
    assert OTHER_JAX or target.triton_refuses(softmax.ir(shape(64, 256))) is None


def test_an_untested_version_of_jax_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    assert "was tested with JAX 0.10" in target.triton_refuses(softmax.ir(shape(64, 256)))


def test_what_triton_has_not_is_made_of_what_it_has():
    x = jnp.linspace(-5, 5, 4001)
    np.testing.assert_allclose(erf_by_polynomial(x), jax.lax.erf(x), atol=5e-7)
    x = jnp.concatenate([x * 3, jnp.asarray([0.5, 1.5, -2.5, 3e9, -3e9, 4194303.5])])
    np.testing.assert_array_equal(round_by_adding(x), jnp.rint(x))


def test_its_source_shows_the_pallas_call():
    assert "pallas_call" in softmax.source("pallas", jnp.ones((4, 8)))
    assert softmax.explain(jnp.ones((4, 8)), backend="pallas").backend == "pallas"
    with pytest.raises(BackendError, match="there is no backend 'palas'"):
        softmax(jnp.ones((4, 8)), backend="palas")
