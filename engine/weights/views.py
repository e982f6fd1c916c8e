"""Sources seen through another layout: fused matrices apart, norms as factors, no axes of a batch."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadCheckpoint
from engine.ops.quant import QTensor, QuantKind
from engine.weights.source import ALL, TensorSource

Parts: TypeAlias = Mapping[str, Sequence[tuple[str, int]]]
"""Module name of a fused matrix -> the modules in it, in order, and how many rows each has."""


class SplitSource:
    """`source`, where each module that `parts` names is seen as the modules it is made of.

    Example: with {"qkv_proj": [("q_proj", 64), ("k_proj", 32), ("v_proj", 32)]} the tensor
    `layers.0.qkv_proj.weight` of 128 rows is not there, but `layers.0.q_proj.weight` of 64 rows is.

    Raises BadCheckpoint where a fused matrix has not as many rows as its parts together.
    """

    def __init__(self, source: TensorSource, parts: Parts) -> None:
        self.label = source.label
        self._source = source
        self._places: dict[str, tuple[str, slice]] = {}
        for name in source.names():
            self._places.update(_places(source, name, parts))

    def names(self) -> Collection[str]:
        return self._places.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        fused, rows = self._places[name]
        if rows == ALL:
            return self._source.shape(fused)
        first, *rest = self._source.shape(fused)
        return (len(range(*rows.indices(first))), *rest)

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        fused, part = self._places[name]
        return self._source.array(fused, _within(part, rows))

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        fused, part = self._places[name]
        return self._source.quantized(fused, kind, _within(part, rows))


def _places(source: TensorSource, name: str, parts: Parts) -> dict[str, tuple[str, slice]]:
    """Where the tensors lie that `name` stands for: itself, or rows of it."""
    *parents, module, leaf = ("", "", *name.split("."))
    if module not in parts:
        return {name: (name, ALL)}
    found, start = {}, 0
    for part, count in parts[module]:
        found[".".join([*parents[2:], part, leaf])] = (name, slice(start, start + count))
        start += count
    if (shape := source.shape(name))[0] != start:
        raise BadCheckpoint(
            f"{source.label}: tensor {name} has shape {shape}; its configuration says {start} rows"
        )
    return found


def _within(part: slice, rows: slice) -> slice:
    """Rows `rows` of the part; both have no step, and a part that is not all has both ends."""
    if part == ALL:
        return rows
    if rows == ALL:
        return part
    start, stop, _ = rows.indices(part.stop - part.start)
    return slice(part.start + start, part.start + stop)


class OffsetNorms:
    """`source`, with 1 added to every norm's weight: Gemma stores w where others store 1 + w."""

    def __init__(self, source: TensorSource) -> None:
        self.label = source.label
        self._source = source

    def names(self) -> Collection[str]:
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        found = self._source.array(name, rows)
        return found + np.float32(1) if name.endswith("norm.weight") else found

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        return self._source.quantized(name, kind, rows)


class Renamed:
    """`source`, where each tensor is called what `new` makes of its name."""

    def __init__(self, source: TensorSource, new: Callable[[str], str]) -> None:
        self.label = source.label
        self._source = source
        self._names = {new(name): name for name in source.names()}

    def names(self) -> Collection[str]:
        return self._names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(self._names[name])

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        return self._source.array(self._names[name], rows)

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        return self._source.quantized(self._names[name], kind, rows)


class WithoutBatch:
    """`source`, where tensors whose names end as `ranks` says lose leading axes of 1 down to that rank.

    PyTorch keeps tokens and positions as (1, 1, hidden) and (1, tokens, hidden), to add them to a batch.
    """

    def __init__(self, source: TensorSource, ranks: Mapping[str, int]) -> None:
        self.label = source.label
        self._source = source
        self._ranks = ranks

    def names(self) -> Collection[str]:
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._source.shape(name)
        rank = next((rank for end, rank in self._ranks.items() if name.endswith(end)), len(shape))
        while len(shape) > rank and shape[0] == 1:
            shape = shape[1:]
        return shape

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        shape = self.shape(name)
        if shape == self._source.shape(name):
            return self._source.array(name, rows)
        found = self._source.array(name).reshape(shape)
        return found if rows == ALL else found[rows]

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        return self._source.quantized(name, kind, rows)
