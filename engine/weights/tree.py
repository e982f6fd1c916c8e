"""A model's parameters as a nested tree and as a flat table of dotted names."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jax

from engine.ops.quant import QTensor

Leaf: TypeAlias = jax.Array | QTensor


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"layers.0.q.weight": w} -> {"layers": [{"q": {"weight": w}}]}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    tree.setdefault("layers", {})
    return _listed(tree)


def _listed(node: dict[str, Any]) -> dict[str, Any]:
    """Every `layers`, however deep, as a list in the order of its numbers."""
    found = {name: _listed(inner) if isinstance(inner, dict) else inner for name, inner in node.items()}
    if "layers" in found:
        found["layers"] = [found["layers"][str(i)] for i in range(len(found["layers"]))]
    return found


def flatten(params: Mapping[str, Any]) -> dict[str, Leaf]:
    """The inverse of `unflatten`."""
    return dict(_named("", params))


def _named(prefix: str, node: Any) -> Iterator[tuple[str, Leaf]]:
    if isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _named(f"{prefix}{name}.", inner)
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _named(f"{prefix}{index}.", inner)
    else:
        yield prefix.removesuffix("."), node
