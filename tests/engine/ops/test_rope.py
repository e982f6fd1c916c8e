import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.rope import RopeConfig, apply_rope, frequencies, rope_tables


def rotated(x: np.ndarray, positions: np.ndarray, freqs: np.ndarray) -> np.ndarray:
    """Complex multiplication in float64: number i is the real part, i + dim/2 the imaginary one."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * positions[..., None, None] * freqs)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def llama3_frequencies(dim, theta, factor, low, high, original):
    """The three cases of Llama 3.1, one frequency at a time."""
    result = []
    for i in range(dim // 2):
        freq = theta ** (-2 * i / dim)
        wavelength = 2 * np.pi / freq
        if wavelength < original / high:
            result.append(freq)
        elif wavelength > original / low:
            result.append(freq / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            result.append((1 - smooth) * freq / factor + smooth * freq)
    return np.array(result)


CASES = {
    "default": (RopeConfig(16, 1e4), 1e4 ** (-np.arange(0, 16, 2) / 16)),
    "linear": (RopeConfig(16, 1e5, "linear", factor=4.0), 1e5 ** (-np.arange(0, 16, 2) / 16) / 4),
    "llama3": (
        RopeConfig(64, 5e5, "llama3", 8.0, 1.0, 4.0, 8192),
        llama3_frequencies(64, 5e5, 8.0, 1.0, 4.0, 8192),
    ),
    "factors": (RopeConfig(4, 1e4, "factors", factors=(1.0, 32.0)), np.array([1.0, 0.01 / 32])),
}


@pytest.mark.parametrize("name", CASES)
def test_rotation_equals_complex_multiplication_in_float64(name):
    config, freqs = CASES[name]
    x = np.random.default_rng(0).standard_normal((2, 5, 3, config.dim))
    positions = np.array([[0, 1, 2, 3, 4], [100, 2, 900, 7, 511]])
    got = apply_rope(jnp.asarray(x, jnp.float32), rope_tables(config, jnp.asarray(positions)))
    np.testing.assert_allclose(got, rotated(x, positions, freqs), atol=3e-4)
    np.testing.assert_allclose(frequencies(config), freqs, rtol=1e-6)


def test_scores_depend_on_the_distance_of_positions_alone():
    config = RopeConfig(8, 1e4)
    q, k = np.random.default_rng(1).standard_normal((2, 1, 1, 1, 8)).astype(np.float32)

    def score(query_at: int, key_at: int) -> float:
        turned = [
            apply_rope(jnp.asarray(v), rope_tables(config, jnp.array([[p]])))
            for v, p in ((q, query_at), (k, key_at))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(5, 2) == pytest.approx(score(105, 102), abs=1e-4)
    assert score(5, 2) != pytest.approx(score(5, 4), abs=1e-2)
