"""Reads a GGUF file's header: metadata and the place of each tensor, every length checked first.

Our own reader of the container, because `gguf.GGUFReader` trusts the file: an array said to hold
2^60 numbers makes it loop until memory runs out. It also needs 1.6 s where this needs 0.1 s for a
vocabulary of 49,152. The tables of types and block sizes, and the dequantisers, are the package's.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from engine.errors import BadCheckpoint

_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4",
    6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MOST_NUMBERS = 1 << 24
"""Numbers of a metadata array: Python makes an object of each. The largest vocabulary has 2^18."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor.

    Attributes:
        shape: row-major, matrices (out, in).
        raw: its bytes in the mapped file, (rows, bytes of a row): quantised blocks never cross a row.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, or several that are one model: metadata as plain Python values, and tensors.

    `path` is the first of `paths`; `encoded` are the fields as they lie in the file, key and type too.
    """

    paths: tuple[Path, ...]
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]
    encoded: dict[str, memoryview]

    @property
    def path(self) -> Path:
        return self.paths[0]


def read_gguf(path: Path) -> GgufFile:
    """Reads the header; maps the rest. Raises BadCheckpoint for anything that does not fit the file."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error})") from error
    cursor = _Cursor(path, memoryview(mapped))
    if bytes(cursor.take(4)) != b"GGUF":
        raise BadCheckpoint(f"{path}: is not a GGUF file")
    version = cursor.number("<I")
    if version not in (2, 3):
        raise BadCheckpoint(f"{path}: GGUF version {version} is not known; 2 and 3 are (little-endian)")
    tensor_count, field_count = cursor.count(24), cursor.count(13)
    fields, encoded = {}, {}
    for _ in range(field_count):
        start, key = cursor.offset, cursor.string()
        fields[key] = cursor.value(cursor.number("<I"))
        encoded[key] = cursor.view[start : cursor.offset]
    infos = [_tensor_info(cursor) for _ in range(tensor_count)]
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise cursor.bad(f"general.alignment {alignment!r} is not in [1, 2^20]")
    start = -(-cursor.offset // alignment) * alignment
    data = np.frombuffer(mapped, dtype=np.uint8)
    tensors = {info[0]: _place(cursor, data[start:], *info) for info in infos}
    if len(tensors) != tensor_count:
        raise cursor.bad("two tensors have one name")
    return GgufFile((path,), fields, tensors, encoded)


class _Cursor:
    """Reads forward through the file; every read is checked against what is left."""

    def __init__(self, path: Path, view: memoryview) -> None:
        self.path, self.view, self.offset = path, view, 0

    def bad(self, reason: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.path}: damaged or truncated GGUF file: {reason}")

    @property
    def left(self) -> int:
        return len(self.view) - self.offset

    def take(self, size: int) -> memoryview:
        if size > self.left:
            raise self.bad(f"{size} bytes wanted at offset {self.offset}, {self.left} left")
        self.offset += size
        return self.view[self.offset - size : self.offset]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def count(self, least_size: int) -> int:
        """A count of things of at least `least_size` bytes each, so bounded by the file's size."""
        count: int = self.number("<Q")
        if count * least_size > self.left:
            raise self.bad(f"a count of {count} at offset {self.offset - 8} does not fit the file")
        return count

    def string(self) -> str:
        try:
            return str(self.take(self.number("<Q")), "utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"a string that ends at offset {self.offset} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        """One metadata value: a number, bool, string, or a list of one of these."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(self.number("<I"))
        return self._numbers(kind, 1)[0]

    def _array(self, kind: int) -> list[Any]:
        if kind == _STRING:
            return [self.string() for _ in range(self.count(8))]
        return self._numbers(kind, self.count(1))

    def _numbers(self, kind: int, count: int) -> list[Any]:
        if kind not in _SCALARS:
            raise self.bad(f"unknown metadata type {kind} at offset {self.offset}")
        if count > _MOST_NUMBERS:
            raise self.bad(f"a metadata array of {count} numbers")
        dtype = np.dtype(_SCALARS[kind])
        values: list[Any] = np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        return values


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, row-major shape, type number, offset in the data part)."""
    name = cursor.string()
    dimensions = cursor.number("<I")
    if not 1 <= dimensions <= 4:
        raise cursor.bad(f"tensor {name[:80]!r} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
    return name, tuple(reversed(shape)), cursor.number("<I"), cursor.number("<Q")


def _place(
    cursor: _Cursor, data: NDArray[np.uint8], name: str, shape: tuple[int, ...], kind: int, offset: int
) -> GgufTensor:
    """The tensor at `offset` of the file's data part, whose blocks must lie inside it."""
    try:
        tensor_type = GGMLQuantizationType(kind)
    except ValueError as error:
        raise cursor.bad(f"tensor {name[:80]!r} has unknown type {kind}") from error
    block, size = GGML_QUANT_SIZES[tensor_type]
    elements = math.prod(shape)
    if elements == 0 or shape[-1] % block:
        raise cursor.bad(f"tensor {name[:80]!r} of shape {shape} is no whole number of blocks of {block}")
    nbytes = elements // block * size
    if offset + nbytes > len(data):
        raise cursor.bad(
            f"tensor {name[:80]!r} ends at {offset + nbytes} of its {len(data)} bytes of tensors"
        )
    raw = data[offset : offset + nbytes].reshape(math.prod(shape[:-1]), -1)
    return GgufTensor(name, tensor_type, shape, raw)
