"""First weights of a vision transformer: drawn so that attention begins near what trained ones look like.

Mimetic initialisation (Trockman and Kolter, 2023): a head's queries times keys begin near the identity and
values times outputs near minus it, with positions of sines and cosines, so that patches begin by looking at
their own surroundings. Small data sets gain most.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.models import vit
from engine.models.vit_config import VitConfig
from engine.weights.tree import unflatten

_QUERY_KEY = (0.7, 0.7)
_VALUE_OUT = (0.4, -0.4)
"""How much noise and how much of the identity the products begin with: the paper's figures."""
_POSITION = 0.5
"""The paper's sines are of size 1 beside patches of unit variance; ours begin at about half of that."""


def initial_params(config: VitConfig, seed: int) -> dict[str, Any]:
    """float32 parameters of `vit.parameter_shapes(config)`, the same for one seed on every machine."""
    random = np.random.default_rng(seed)
    flat = {name: _drawn(name, shape, random) for name, shape in vit.parameter_shapes(config).items()}
    for index in range(config.num_layers):
        flat |= _attention(f"layers.{index}", config, random)
    flat["embed.position"] = _positions(config)
    return unflatten({name: jnp.asarray(leaf, jnp.float32) for name, leaf in flat.items()})


def _drawn(name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    if name.endswith("norm.weight"):
        return np.ones(shape)
    if name.endswith("_scale"):
        return np.full(shape, 1e-1)
    if name.endswith("bias") or name.startswith(("head", "distillation_head")):
        return np.zeros(shape)
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 2500
    drawn: NDArray[np.float64] = np.clip(random.standard_normal(shape), -2, 2) * inputs**-0.5
    return drawn


def _attention(at: str, config: VitConfig, random: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """q, k, v and o of one layer, (out, in), factored out of the products they should make."""
    hidden, dim = config.hidden_size, config.head_dim
    query, key = np.empty((hidden, hidden)), np.empty((hidden, hidden))
    for head in range(config.num_heads):
        rows = slice(head * dim, (head + 1) * dim)
        query[rows], key[rows] = _factors(_near_identity(hidden, _QUERY_KEY, random), dim)
    out, value = _factors(_near_identity(hidden, _VALUE_OUT, random), hidden)
    return {
        f"{at}.q.weight": query,
        f"{at}.k.weight": key,
        f"{at}.v.weight": value,
        f"{at}.o.weight": out.T,
    }


def _near_identity(size: int, parts: tuple[float, float], random: np.random.Generator) -> NDArray[np.float64]:
    noise, identity = parts
    spread = noise * size**-0.5
    found: NDArray[np.float64] = spread * random.standard_normal((size, size)) + identity * np.eye(size)
    return found


def _factors(product: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rank, size) twice, whose product, the first transposed, is the best of that rank."""
    left, sizes, right = np.linalg.svd(product)
    root = np.sqrt(sizes[:rank])
    return (left[:, :rank] * root).T, root[:, None] * right[:rank]


def _positions(config: VitConfig) -> NDArray[np.float64]:
    """Sines and cosines of row and column (as in MAE, He et al., 2021); zeros before the patches."""
    quarter = config.hidden_size // 4
    rates = 10000.0 ** -(np.arange(quarter) / quarter)
    rows, columns = np.indices(config.grid).reshape(2, -1, 1)
    table = np.concatenate([f(at * rates) for at in (rows, columns) for f in (np.sin, np.cos)], axis=1)
    table = np.pad(table, ((config.position_prefix, 0), (0, config.hidden_size - 4 * quarter)))
    return _POSITION * table
