"""Image operations beside Pillow's own arithmetic, and patches that go apart and together again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from engine.ops import images as ops
from engine.vision.preprocess import Preprocessing

PILLOW = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


def photo(height=96, width=131):
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).resize((width, height), 3)
    return np.clip(np.asarray(coarse) + rng.integers(-25, 26, (height, width, 3)), 0, 255).astype(np.uint8)


def by_pillow(image, size, method):
    """In float, which Pillow does for one channel at a time."""
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[-1])]
    return np.stack([np.asarray(p.resize(size[::-1], PILLOW[method])) for p in planes], axis=-1)


@pytest.mark.parametrize("method", PILLOW)
@pytest.mark.parametrize("size", [(32, 32), (48, 20), (192, 200)])
def test_resizing_equals_pillows_float_path(method, size):
    image = photo()
    np.testing.assert_allclose(ops.resize(image, size, method), by_pillow(image, size, method), atol=0.02)


@pytest.mark.parametrize(("method", "most"), [("bilinear", 1.01), ("bicubic", 2.6)])
def test_resizing_is_within_rounding_of_the_eight_bit_path(method, most):
    image = photo()
    exact = Preprocessing(size=(32, 32), resample=method).fitted(image)
    found = np.clip(ops.resize(image, (32, 32), method), 0, 255)
    assert np.abs(found - exact).max() < most


def test_without_antialias_fewer_pixels_are_looked_at():
    image = photo()
    apart = ops.resize(image, (16, 16), antialias=False) - ops.resize(image, (16, 16))
    assert np.abs(apart).max() > 5


def test_resizing_keeps_batch_axes():
    batch = np.stack([photo(), photo()[::-1]])[None]
    found = ops.resize(batch, (20, 30), "bicubic")
    assert found.shape == (1, 2, 20, 30, 3)
    np.testing.assert_allclose(found[0, 1], ops.resize(batch[0, 1], (20, 30), "bicubic"), atol=1e-4)


def test_normalising_and_cropping_equal_the_host_path():
    image, mean, std = photo(40, 50), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    host = Preprocessing(size=None, crop=(31, 28), mean=mean, std=std)
    device = ops.channels_first(ops.normalize(ops.center_crop(image, (31, 28)), mean, std))
    np.testing.assert_allclose(device, host.prepare(image), atol=1e-6)
    with pytest.raises(ValueError, match="41x28 cannot be cut from 40x50"):
        ops.center_crop(image, (41, 28))


def test_patches_are_those_of_a_strided_convolution():
    """With pixels left over on two sides, which a convolution leaves out."""
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.standard_normal((2, 3, 17, 22)), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((5, 3, 4, 6)), jnp.float32)
    expected = jax.lax.conv(pixels, weight, (4, 6), "VALID")
    flat = ops.flatten_patches(ops.extract_patches(pixels, (4, 6)))
    found = (flat @ weight.reshape(5, -1).T).transpose(0, 2, 1).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_patches_go_together_again():
    pixels = jnp.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    flat = ops.flatten_patches(ops.extract_patches(pixels, (2, 3)))
    assert flat.shape == (2, 16, 18)
    np.testing.assert_array_equal(ops.assemble_patches(flat, (4, 4), (2, 3), 3), pixels)


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="3x9 is smaller than a patch of 4x4"):
        ops.extract_patches(jnp.zeros((1, 3, 3, 9)), (4, 4))


def test_operations_can_be_differentiated_and_mapped():
    image = jnp.asarray(photo(20, 20), jnp.float32)
    slope = jax.grad(lambda x: ops.resize(x, (5, 5)).sum())(image)
    assert slope.shape == image.shape and float(jnp.abs(slope).sum()) > 0
    several = jax.vmap(lambda x: ops.resize(x, (5, 5)))(jnp.stack([image, image]))
    assert several.shape == (2, 5, 5, 3)
