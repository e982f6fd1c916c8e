"""What a kernel is called with: arrays, packed nibbles, and descriptions of its outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from dsl.ir.types import NIBBLES, STORAGES, RefType, Role, Shape, Storage
from dsl.lang.errors import KernelError

STORAGE_OF: dict[str, Storage] = {
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "int32": "i32",
    "int8": "i8",
    "uint8": "u8",
}
NUMPY_NAME: dict[Storage, str] = {storage: name for name, storage in STORAGE_OF.items()} | {
    "i4": "uint8",
    "u4": "uint8",
}


@dataclass(frozen=True)
class Output:
    """Shape and storage dtype of an output."""

    shape: Shape
    dtype: Storage


@dataclass(frozen=True)
class Update:
    """An output that begins as `array`, which itself is left alone (functional, as all of JAX)."""

    array: Any


@dataclass(frozen=True)
class Packed:
    """uint8 bytes that hold nibbles, two a byte, in the order that `dsl.ir` gives.

    Attributes:
        data: uint8, last axis a multiple of 16.
        dtype: "i4" (-8 .. 7) or "u4" (0 .. 15).
    """

    data: Any
    dtype: Storage

    @property
    def shape(self) -> Shape:
        """The logical shape: the last axis counts nibbles."""
        return (*self.data.shape[:-1], self.data.shape[-1] * 2)


Outputs: TypeAlias = Output | Update | Sequence[Output | Update]


def like(x: Any, *, shape: Shape | None = None, dtype: str | None = None) -> Output:
    """An output with the shape and dtype of `x` (an array, a Ref or packed nibbles), or with others."""
    found = dtype or storage_of(x)
    if found not in STORAGES or found in NIBBLES:
        raise KernelError(f"an output is one of f32, f16, bf16, i32, i8, u8, not {found!r}")
    extents = x.shape if shape is None else shape
    if not isinstance(extents, tuple | list) or not all(isinstance(n, int | np.integer) for n in extents):
        raise KernelError(f"an output's shape is a tuple of Python ints, not {extents!r}")
    return Output(tuple(map(int, extents)), found)


def update(array: Any) -> Update:
    """An output that begins as `array`: what the kernel does not store keeps its value."""
    return Update(array)


def storage_of(x: Any) -> Storage:
    """The storage dtype of an array, a Ref, a description or packed nibbles. Raises KernelError."""
    name = str(getattr(x, "dtype", type(x).__name__))
    if name in STORAGES:
        return name
    if name not in STORAGE_OF:
        raise KernelError(
            f"arrays of {name} have no storage dtype in the DSL; cast to {', '.join(STORAGE_OF)} first"
        )
    return STORAGE_OF[name]


def ref_type(name: str, x: Any, role: Role) -> RefType:
    """The Ref that an argument becomes."""
    if isinstance(x, Packed):
        if x.dtype not in NIBBLES or str(x.data.dtype) != "uint8":
            raise KernelError(
                f"{name}: Packed holds uint8 data as 'i4' or 'u4', not {x.data.dtype} as {x.dtype!r}"
            )
        return RefType(name, x.dtype, x.shape, role)
    if not hasattr(x, "shape"):
        raise KernelError(
            f"{name}: {type(x).__name__} is not an array; pass jnp.asarray(...), and numbers by keyword"
        )
    return RefType(name, storage_of(x), tuple(x.shape), role)
