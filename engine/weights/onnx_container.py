"""Reads an ONNX file's weights and the graph around them, every length checked first; runs nothing.

Our own reader of the container: three messages of protobuf's wire format are all it takes, and the files come
from outside. Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3 and
https://protobuf.dev/programming-guides/encoding/.
"""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadCheckpoint, UnsupportedModel

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_DTYPES = {1: "<f4", 10: "<f2", 11: "<f8", 6: "<i4", 7: "<i8"}
"""TensorProto.DataType of what we read; other tensors are only named."""
_FLOATS = ("<f4", "<f2", "<f8")
_MOST_AXES = 8


@dataclass(frozen=True)
class OnnxTensor:
    """One initialiser. `dtype` is empty for a type that is not read; `raw` are its bytes in the file."""

    shape: tuple[int, ...]
    dtype: str
    raw: memoryview

    def array(self) -> NDArray[np.float32]:
        """Raises UnsupportedModel for a type that is no float."""
        if self.dtype not in _FLOATS:
            raise UnsupportedModel("an ONNX tensor of weights must be of float32, float16 or float64")
        found = np.frombuffer(self.raw, self.dtype).reshape(self.shape)
        return np.asarray(found, np.float32)


@dataclass(frozen=True)
class OnnxNode:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxFile:
    path: Path
    tensors: dict[str, OnnxTensor] = field(default_factory=dict)
    nodes: list[OnnxNode] = field(default_factory=list)


def read_onnx(path: Path) -> OnnxFile:
    """Maps the file. Raises BadCheckpoint for anything that does not fit it, UnsupportedModel for weights
    that lie in other files."""
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error})") from error
    found = OnnxFile(path)
    graphs = [value for number, value in _Wire(path, mapped).fields() if number == _GRAPH]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise BadCheckpoint(f"{path}: is not an ONNX file")
    for number, value in _Wire(path, graphs[0]).fields():
        if number == _NODE:
            found.nodes.append(_node(_Wire(path, value)))
        elif number == _INITIALIZER:
            name, tensor = _tensor(_Wire(path, value))
            found.tensors[name] = tensor
    return found


def _node(wire: "_Wire") -> OnnxNode:
    inputs, outputs, op = [], [], ""
    for number, value in wire.fields():
        if number == 1:
            inputs.append(wire.text(value))
        elif number == 2:
            outputs.append(wire.text(value))
        elif number == 4:
            op = wire.text(value)
    return OnnxNode(op, tuple(inputs), tuple(outputs))


def _tensor(wire: "_Wire") -> tuple[str, OnnxTensor]:
    shape: list[int] = []
    name, kind, raw = "", 0, memoryview(b"")
    for number, value in wire.fields():
        if number == 1:
            shape += wire.integers(value)
        elif number == 2:
            kind = wire.integer(value)
        elif number in (4, 9):  # float_data, which is packed float32, or raw_data
            raw = wire.bytes(value)
        elif number == 8:
            name = wire.text(value)
        elif number == 14 and value != 0:
            raise UnsupportedModel(f"{wire.path}: its weights lie in other files, which is not supported")
    dtype = _DTYPES.get(kind, "")
    if len(shape) > _MOST_AXES or any(not 0 <= side < 1 << 40 for side in shape):
        raise wire.bad(f"tensor {name[:80]!r} has shape {tuple(shape)[:9]}")
    if dtype and math.prod(shape) * np.dtype(dtype).itemsize != len(raw):
        raise wire.bad(f"tensor {name[:80]!r} of shape {tuple(shape)} has {len(raw)} bytes")
    return name, OnnxTensor(tuple(shape), dtype, raw)


class _Wire:
    """The fields of one message, in order; every number and length is inside `data`."""

    def __init__(self, path: Path, data: "memoryview | int") -> None:
        self.path = path
        if not isinstance(data, memoryview):
            raise self.bad("a message is a number")
        self._data = data

    def fields(self) -> Iterator[tuple[int, "memoryview | int"]]:
        """(number, value): an integer, or the bytes of what has a length."""
        offset, end = 0, len(self._data)
        while offset < end:
            key, offset = self._varint(offset)
            kind = key & 7
            if kind == _VARINT:
                value, offset = self._varint(offset)
                yield key >> 3, value
                continue
            if kind == _BYTES:
                size, offset = self._varint(offset)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise self.bad(f"field {key >> 3} has wire type {kind}")
            if size > end - offset:
                raise self.bad(f"field {key >> 3} ends beyond its message")
            yield key >> 3, self._data[offset : offset + size]
            offset += size

    def _varint(self, offset: int) -> tuple[int, int]:
        value = 0
        for place in range(10):
            if offset >= len(self._data):
                break
            byte = self._data[offset]
            offset += 1
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value, offset
        raise self.bad("a number does not end")

    def bytes(self, value: "memoryview | int") -> memoryview:
        if not isinstance(value, memoryview):
            raise self.bad("a number where bytes belong")
        return value

    def text(self, value: "memoryview | int") -> str:
        return bytes(self.bytes(value)[:4096]).decode("utf-8", "replace")

    def integer(self, value: "memoryview | int") -> int:
        if isinstance(value, memoryview):
            raise self.bad("bytes where a number belongs")
        return value

    def integers(self, value: "memoryview | int") -> list[int]:
        """One number, or several packed."""
        if not isinstance(value, memoryview):
            return [value]
        if len(value) > 10 * _MOST_AXES:
            raise self.bad("a tensor has too many axes")
        found, offset, inner = [], 0, _Wire(self.path, value)
        while offset < len(value):
            number, offset = inner._varint(offset)
            found.append(number)
        return found

    def bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.path}: is damaged: {what}")
