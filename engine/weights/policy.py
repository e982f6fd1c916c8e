"""Which form each parameter takes in memory, and `quantize`, which gives a whole tree of them that form."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from engine.errors import InvalidRequest
from engine.ops import quant as ops
from engine.ops.quant import QTensor
from engine.weights.tree import Leaf, flatten, unflatten

Quant: TypeAlias = Literal["f32", "bf16", "int8", "int4"]
"""What matrices are in memory. bf16 is for GPUs; a CPU multiplies it more slowly than f32."""

_TABLES = ("embed", "head", "embed.word")
"""Vocabulary tables: quantised, but never below int8 unless asked; the logits feel them most."""


_LAYERS = ("layers.", "vision.layers.", "text.layers.")


@dataclass(frozen=True)
class Policy:
    """The form of each parameter by its dotted name; the first of `overrides` that matches decides.

    Without one, matrices of layers take `quant`, and so do vocabulary tables, but int8 for int4. Other
    parameters (norms, biases, positions, heads of rerankers) are float32 always.

    Example:
        >>> policy = Policy("int4", (("layers.*.down.weight", "int8"),))
        >>> policy.form("layers.3.down.weight", 2), policy.form("layers.3.up.weight", 2)
        ('int8', 'int4')
    """

    quant: Quant = "f32"
    overrides: tuple[tuple[str, Quant], ...] = ()

    def __post_init__(self) -> None:
        for form in (self.quant, *(form for _, form in self.overrides)):
            if form not in get_args(Quant):
                raise InvalidRequest(f"quant must be one of {', '.join(get_args(Quant))}, not {form!r}")

    @classmethod
    def of(cls, quant: Quant, overrides: Iterable[str] = ()) -> "Policy":
        """With overrides written `PATTERN=FORM`, shell patterns over names: "layers.*.down.weight=int8"."""
        return cls(quant, tuple(_override(text) for text in overrides))

    def form(self, name: str, rank: int) -> Quant:
        """What the parameter of that name and number of axes is in memory."""
        if not _is_matrix(name, rank):
            return "f32"
        chosen = (form for pattern, form in self.overrides if fnmatchcase(name, pattern))
        usual: Quant = "int8" if name in _TABLES and self.quant == "int4" else self.quant
        return next(chosen, usual)

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raises InvalidRequest for an override that fits none of the model's matrices."""
        matrices = [name for name, shape in shapes.items() if _is_matrix(name, len(shape))]
        for pattern, _ in self.overrides:
            if not any(fnmatchcase(name, pattern) for name in matrices):
                some = ", ".join(dict.fromkeys(name.replace(".0.", ".*.") for name in matrices[:9]))
                raise InvalidRequest(f"no matrix is called {pattern!r}; there are {some}, ...")


def quantize(params: dict[str, Any], quant: Quant, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The tree with its matrices in the form that `Policy.of(quant, overrides)` says; runs on the host.

    Args:
        params: as `load_checkpoint` gives them, or as training left them; what is quantised already is
            rounded again where its form changes.

    Example:
        >>> small = quantize(load_checkpoint(path).params, "int4", ["layers.0.*=int8"])
    """
    policy, flat = Policy.of(quant, overrides), flatten(params)
    policy.check({name: leaf.shape for name, leaf in flat.items()})
    return unflatten({name: _formed(leaf, policy.form(name, len(leaf.shape))) for name, leaf in flat.items()})


def form_of(leaf: Leaf) -> Quant:
    """The form a parameter has; float32 for every float but bfloat16."""
    if isinstance(leaf, QTensor):
        return leaf.kind
    return "bf16" if leaf.dtype == jnp.bfloat16 else "f32"


def _formed(leaf: Leaf, form: Quant) -> Leaf:
    if form_of(leaf) == form:
        return leaf
    wide: jax.Array = ops.dequantize(leaf) if isinstance(leaf, QTensor) else leaf
    if form == "int8" or form == "int4":
        return ops.quantize(np.asarray(wide, np.float32), form)
    return wide.astype(jnp.bfloat16 if form == "bf16" else jnp.float32)


def _is_matrix(name: str, rank: int) -> bool:
    return rank == 2 and (name in _TABLES or name.startswith(_LAYERS))


def _override(text: str) -> tuple[str, Any]:
    pattern, separator, form = text.rpartition("=")
    if not separator or not pattern:
        raise InvalidRequest(f"{text!r} must be PATTERN=FORM, like 'layers.*.down.weight=int8'")
    return pattern, form
