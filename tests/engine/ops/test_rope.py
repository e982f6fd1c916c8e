import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.rope import RopeConfig, apply_rope, for_length, frequencies, rope_tables


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


def yarn_frequencies(dim, theta, factor, slow, fast, original):
    """YaRN's ramp, one frequency at a time, between the places that turn `fast` and `slow` times."""
    start, end = (
        dim * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(theta)) for turns in (fast, slow)
    )
    start, end = max(np.floor(start), 0), min(np.ceil(end), dim - 1)
    result = []
    for i in range(dim // 2):
        freq = theta ** (-2 * i / dim)
        divided = min(max((i - start) / (end - start), 0), 1)
        result.append(freq / factor * divided + freq * (1 - divided))
    return np.array(result)


CASES = {
    "default": (RopeConfig(16, 1e4), 1e4 ** (-np.arange(0, 16, 2) / 16)),
    "linear": (RopeConfig(16, 1e5, "linear", factor=4.0), 1e5 ** (-np.arange(0, 16, 2) / 16) / 4),
    "llama3": (
        RopeConfig(64, 5e5, "llama3", 8.0, 1.0, 4.0, 8192),
        llama3_frequencies(64, 5e5, 8.0, 1.0, 4.0, 8192),
    ),
    "yarn": (
        RopeConfig(64, 1e6, "yarn", 4.0, 1.0, 32.0, 4096),
        yarn_frequencies(64, 1e6, 4.0, 1.0, 32.0, 4096),
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


# By transformers 5.24: dim 16, theta 1e4, factor 4, 32 tokens at first.
YARN_16 = [1.0, 0.1976424, 0.025, 0.007905695, 0.0025, 0.0007905695, 0.00025, 7.905695e-05]


def test_yarn_equals_the_numbers_of_transformers():
    config = RopeConfig(16, 1e4, "yarn", 4.0, 1.0, 32.0, 32, scale=1.1386294)
    np.testing.assert_allclose(frequencies(config), YARN_16, rtol=1e-6)
    cos, sin = rope_tables(config, jnp.array([[3]]))
    np.testing.assert_allclose(np.hypot(cos, sin), 1.1386294, rtol=1e-6)


def test_dynamic_ntk_raises_theta_beyond_the_first_context_alone():
    config = RopeConfig(16, 1e4, "dynamic", 2.0, original_context=32)
    assert for_length(config, 32) == config
    theta = 1e4 * (2.0 * 48 / 32 - 1.0) ** (16 / 14)
    np.testing.assert_allclose(
        frequencies(for_length(config, 48)), theta ** (-np.arange(0, 16, 2) / 16), rtol=1e-6
    )


def test_longrope_takes_its_long_factors_beyond_the_first_context():
    config = RopeConfig(4, 1e4, "factors", original_context=32, factors=(1.0, 2.0), long_factors=(4.0, 8.0))
    np.testing.assert_allclose(frequencies(for_length(config, 32)), [1.0, 0.005], rtol=1e-6)
    np.testing.assert_allclose(frequencies(for_length(config, 33)), [0.25, 0.00125], rtol=1e-6)


def test_a_part_of_a_head_is_rotated_and_the_rest_passes_through():
    x = np.random.default_rng(2).standard_normal((1, 3, 2, 10)).astype(np.float32)
    tables = rope_tables(RopeConfig(6, 1e4), jnp.arange(3)[None])
    got = apply_rope(jnp.asarray(x), tables)
    np.testing.assert_array_equal(got[..., 6:], x[..., 6:])
    np.testing.assert_array_equal(got[..., :6], apply_rope(jnp.asarray(x[..., :6]), tables))


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
