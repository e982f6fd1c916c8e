"""Trees of parameters for tests of packed weights."""

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from engine.ops.quant import QTensor
from engine.weights.policy import Quant, form_of, quantize
from engine.weights.tree import flatten, unflatten


def random_tree(quant: Quant, overrides: tuple[str, ...] = (), features: int = 72) -> dict[str, Any]:
    """Two layers whose matrices have `features` columns: 72 is no whole number of groups."""
    rng = np.random.default_rng(5)
    shapes = {
        "embed": (50, features),
        **{f"layers.{i}.q.weight": (40, features) for i in range(2)},
        **{f"layers.{i}.q.bias": (40,) for i in range(2)},
        **{f"layers.{i}.attn_norm": (features,) for i in range(2)},
        "norm": (features,),
    }
    flat = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return quantize(
        unflatten({name: jax.numpy.asarray(value) for name, value in flat.items()}), quant, overrides
    )


def shapes_of(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in flatten(params).items()}


def assert_same_bits(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Names, forms, true widths, dtypes, shapes and all bytes are equal."""
    left, right = flatten(found), flatten(wanted)
    assert left.keys() == right.keys()
    for name, leaf in right.items():
        assert form_of(left[name]) == form_of(leaf), name
        if isinstance(leaf, QTensor):
            assert left[name].in_features == leaf.in_features
        for one, other in zip(jax.tree.leaves(left[name]), jax.tree.leaves(leaf), strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), name
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), name


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
