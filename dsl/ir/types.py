"""What values and arrays are: compute and storage dtypes, shapes, Refs, places in the user's source."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

DType: TypeAlias = Literal["f32", "i32", "bool", "f16", "bf16"]
Storage: TypeAlias = Literal["f32", "f16", "bf16", "i32", "i8", "u8", "i4", "u4"]
Role: TypeAlias = Literal["in", "out", "inout"]
Shape: TypeAlias = tuple[int, ...]

DTYPES: tuple[DType, ...] = get_args(DType)
STORAGES: tuple[Storage, ...] = get_args(Storage)
FLOATS = ("f32", "f16", "bf16")
NIBBLES = ("i4", "u4")
NIBBLE_GROUP = 32
"""Nibbles are packed along the last axis in groups of this many: see `dsl.ir`."""

BITS: dict[str, int] = {"f32": 32, "f16": 16, "bf16": 16, "i32": 32, "i8": 8, "u8": 8, "i4": 4, "u4": 4}


@dataclass(frozen=True)
class Loc:
    """A place in the user's source."""

    file: str
    line: int


@dataclass(frozen=True)
class Value:
    """One SSA value. `shape` is () for a scalar, (rows, columns) for a tile."""

    id: int
    dtype: DType
    shape: Shape = ()

    @property
    def is_scalar(self) -> bool:
        return self.shape == ()


@dataclass(frozen=True)
class RefType:
    """An array that a kernel reads or writes; `shape` is the logical one, also of nibbles."""

    name: str
    dtype: Storage
    shape: Shape
    role: Role = "in"

    @property
    def value_dtype(self) -> DType:
        """The dtype its elements have as values: what `load` gives and `store` takes."""
        return self.dtype if self.dtype in ("f32", "f16", "bf16") else "i32"

    @property
    def stored_shape(self) -> Shape:
        """The shape of the array in memory: the last axis of nibbles is halved."""
        return (*self.shape[:-1], self.shape[-1] // 2) if self.dtype in NIBBLES else self.shape

    @property
    def nbytes(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size * BITS[self.dtype] // 8

    @property
    def is_written(self) -> bool:
        return self.role != "in"
