"""From a source of named tensors to a model's tree of parameters, names and shapes checked."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.weights.names import Rename, ignorable
from engine.weights.pages import LargePages
from engine.weights.policy import Policy, Quant
from engine.weights.source import TensorSource
from engine.weights.tree import Leaf, unflatten


def build_params(
    source: TensorSource,
    shapes: Mapping[str, tuple[int, ...]],
    rename: Rename,
    policy: Policy,
    ignored: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The nested tree of parameters that `shapes` (dotted name -> shape) describes.

    Tensors whose names begin as one of `ignored` may be there and are left unread.

    Raises BadCheckpoint naming tensors that are missing, of a wrong shape, or that the model would
    leave unused, before anything is read.
    """
    names = {name: rename(name) for name in shapes}
    _check(source, shapes, names, ignored)
    forms = {name: policy.form(name, len(shape)) for name, shape in shapes.items()}
    pages = LargePages()
    return unflatten({n: jax.tree.map(pages.hold, _load(source, names[n], forms[n])) for n in shapes})


def _check(
    source: TensorSource,
    shapes: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    ignored: tuple[str, ...],
) -> None:
    present = set(source.names())
    wanted = set(names.values())
    missing = sorted(wanted - present)
    if missing and "head" in shapes and missing == [names["head"]]:
        raise UnsupportedModel(f"{source.label}: a base model without a language head, which cannot generate")
    if missing:
        raise BadCheckpoint(f"{source.label}: the weights lack {_listed(missing)}")
    unexpected = sorted(name for name in present - wanted if not ignorable(name, ignored))
    if unexpected:
        raise BadCheckpoint(
            f"{source.label}: the model of its configuration has no place for {_listed(unexpected)}"
        )
    for name, shape in shapes.items():
        found = source.shape(names[name])
        if found != shape:
            raise BadCheckpoint(
                f"{source.label}: tensor {names[name]} has shape {found}; its configuration says {shape}"
            )


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name[:100]) for name in names[:3]) + rest


def _load(source: TensorSource, key: str, form: Quant) -> Leaf:
    if form == "int8" or form == "int4":
        return source.quantized(key, form)
    found = jnp.asarray(source.array(key))
    return found.astype(jnp.bfloat16) if form == "bf16" else found
