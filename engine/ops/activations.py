"""Activation functions, by the names that checkpoints' configurations use."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def silu(x: jax.Array) -> jax.Array:
    """x * sigmoid(x)."""
    return jax.nn.silu(x)


def gelu(x: jax.Array) -> jax.Array:
    """x * Phi(x), by erf: `gelu` in Hugging Face configurations.

    Not `jax.nn.gelu`, whose erfc takes half as long again for digits that PyTorch does not have either.
    """
    half = 0.5 * x
    found: jax.Array = half + half * jax.lax.erf(x * 0.5**0.5)
    return found


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The tanh approximation of GELU: `gelu_new` and `gelu_pytorch_tanh`."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x): what OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def tanh(x: jax.Array) -> jax.Array:
    return jnp.tanh(x)


def softcap(x: jax.Array, cap: float) -> jax.Array:
    """cap * tanh(x / cap): x where it is small, never beyond the cap (Gemma 2)."""
    return cap * jnp.tanh(x / cap)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "tanh": tanh,
}
