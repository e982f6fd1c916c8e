"""Bicubic interpolation of a table over a grid, as PyTorch does it, by two small dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


def resize_grid(table: jax.Array, size: tuple[int, int], *, antialias: bool = False) -> jax.Array:
    """(rows, columns, dim) -> (*size, dim): `torch.nn.functional.interpolate(mode="bicubic")` of a grid.

    `align_corners` is False. Differentiable; the matrices are constants of the program.
    """
    rows = jnp.asarray(bicubic_matrix(table.shape[0], size[0], antialias=antialias))
    columns = jnp.asarray(bicubic_matrix(table.shape[1], size[1], antialias=antialias))
    return jnp.einsum("ri,cj,ijd->rcd", rows, columns, table, precision="highest")


def bicubic_matrix(old: int, new: int, *, antialias: bool) -> NDArray[np.float32]:
    """(new, old): each output's weights over the inputs (Keys, 1981).

    Without antialias the cubic has a = -0.75, four taps, and repeats the edge; with it a = -0.5, a support
    that widens where the table shrinks, and weights inside the table only, scaled to sum 1.
    """
    return (_wide(old, new) if antialias else _four_taps(old, new)).astype(np.float32)


def _four_taps(old: int, new: int) -> NDArray[np.float64]:
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        weights = _cubic(centres - (first + tap), -0.75)
        np.add.at(matrix, (np.arange(new), np.clip(first + tap, 0, old - 1)), weights)
    return matrix


def _wide(old: int, new: int) -> NDArray[np.float64]:
    scale = old / new
    widest = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    distance = (np.arange(old)[None] + 0.5 - centres[:, None]) / widest
    matrix = _cubic(distance, -0.5)
    scaled: NDArray[np.float64] = matrix / matrix.sum(axis=1, keepdims=True)
    return scaled


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
