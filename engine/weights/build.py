"""From a source of named tensors to a model's tree of parameters, names and shapes checked."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.ops.quant import QTensor, QuantKind
from engine.weights.names import Rename, ignorable
from engine.weights.source import TensorSource

Quant: TypeAlias = Literal["f32", "bf16", "int8", "int4"]
"""What matrices are in memory. bf16 is for GPUs; a CPU multiplies it more slowly than f32."""

_TABLES = ("embed", "head", "embed.word")
"""Vocabulary tables: quantised, but never below int8; the logits feel them most."""


def build_params(
    source: TensorSource,
    shapes: Mapping[str, tuple[int, ...]],
    rename: Rename,
    quant: Quant,
    ignored: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The nested tree of parameters that `shapes` (dotted name -> shape) describes.

    Tensors whose names begin as one of `ignored` may be there and are left unread.

    Raises BadCheckpoint naming tensors that are missing, of a wrong shape, or that the model would
    leave unused, before anything is read.
    """
    names = {name: rename(name) for name in shapes}
    _check(source, shapes, names, ignored)
    flat = {name: _load(source, name, names[name], len(shapes[name]), quant) for name in shapes}
    return unflatten(flat)


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


def _load(source: TensorSource, name: str, key: str, rank: int, quant: Quant) -> jax.Array | QTensor:
    table = name in _TABLES
    matrix = rank == 2 and (table or name.startswith("layers."))
    if matrix and quant in ("int8", "int4"):
        kind: QuantKind = "int8" if table else quant
        return source.quantized(key, kind)
    found = jnp.asarray(source.array(key))
    return found.astype(jnp.bfloat16) if matrix and quant == "bf16" else found


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"layers.0.q.weight": w} -> {"layers": [{"q": {"weight": w}}]}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    layers = tree.pop("layers", {})
    return {**tree, "layers": [layers[str(i)] for i in range(len(layers))]}
