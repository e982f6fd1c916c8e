"""Quantised weights on disk as they are in memory: written once, mapped at every start, nothing repacked.

One safetensors file that any reader opens: a parameter `name` is one tensor, a QTensor its parts
`name.values`, `name.scale` and, for int4, `name.minimum`. The metadata hold the format's version, the
default form of matrices and a checksum. It finds damage; it is no signature: who can write the file can
write a checksum.
"""

import hashlib
import json
import math
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.errors import BadCheckpoint
from engine.ops.quant import GROUP, QTensor
from engine.weights.pages import LargePages
from engine.weights.policy import Quant
from engine.weights.tree import Leaf, flatten, unflatten

VERSION = "1"
_FORMAT = "tarsia-packed"
_ALIGN = 64
"""Of the data of each tensor but the oddly sized last ones: JAX takes such a mapping without copying it."""
_CHUNK = 8 << 20
"""Bytes hashed at a time; the checksum is over the chunks' hashes, so that threads share the work."""
_THREADS = 4
_LARGEST_HEADER = 64 << 20
_NAMES = {"F32": jnp.float32, "BF16": jnp.bfloat16, "I8": jnp.int8, "U8": jnp.uint8}
_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(kind) for name, kind in _NAMES.items()}
_PART = re.compile(r"\.(values|scale|minimum)$")
_Table: TypeAlias = Mapping[str, Any]


def write_packed(path: Path, params: Mapping[str, Any], quant: Quant) -> None:
    """Writes the tree to `path`, which is there whole or not at all. `quant` is its matrices' usual form.

    Raises OSError.
    """
    arrays = dict(_parts(flatten(params)))
    # Whole multiples of 64 bytes first: then each of them begins at one too.
    order = sorted(arrays, key=lambda name: (arrays[name].nbytes % _ALIGN != 0, name))
    table, end = {}, 0
    for name in order:
        array, start = arrays[name], end
        end = start + array.nbytes
        dtype = next(known for known, kind in _DTYPES.items() if kind == array.dtype)
        table[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    metadata = {"format": _FORMAT, "version": VERSION, "quant": quant, "sha256": "0" * 64}
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".partial-", delete=False) as file:
        try:
            start = file.write(_encoded(metadata, table))
            for name in order:
                np.ascontiguousarray(arrays[name]).tofile(file)
            file.flush()
            metadata["sha256"] = _checksum(metadata, table, _mapped(Path(file.name))[start:])
            file.seek(0)
            file.write(_encoded(metadata, table))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _encoded(metadata: Mapping[str, str], table: _Table) -> bytes:
    """The start of the file, up to the data, which begin at a multiple of 64 bytes."""
    header = json.dumps({"__metadata__": metadata, **table}).encode()
    header += b" " * (-(8 + len(header)) % _ALIGN)
    return struct.pack("<Q", len(header)) + header


def _mapped(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _parts(flat: Mapping[str, Leaf]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, leaf in flat.items():
        if isinstance(leaf, QTensor):
            yield f"{name}.values", np.asarray(leaf.values)
            yield f"{name}.scale", np.asarray(leaf.scale)
            if leaf.minimum is not None:
                yield f"{name}.minimum", np.asarray(leaf.minimum)
        else:
            yield name, np.asarray(leaf)


def _checksum(metadata: Mapping[str, str], table: _Table, data: NDArray[np.uint8]) -> str:
    """Over the metadata without the checksum, what the header says of each tensor, and the data."""
    told = {name: text for name, text in metadata.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps([told, dict(table)], sort_keys=True).encode())
    chunks = (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))
    with ThreadPoolExecutor(_THREADS) as threads:
        for chunk in threads.map(lambda chunk: hashlib.sha256(chunk).digest(), chunks):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class PackedWeights:
    """A packed file that is whole: its checksum is right.

    Arrays on the CPU are the mapped file itself where large pages are not to be had, so the file must not be
    cut short while they live; replacing or deleting it is safe.
    """

    path: Path
    quant: Quant
    table: _Table
    data: NDArray[np.uint8]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a parameter that is not quantised; empty where there is none of that name."""
        return tuple(self.table[name]["shape"]) if name in self.table else ()

    def names(self) -> set[str]:
        """The parameters' dotted names."""
        return {_PART.sub("", name) for name in self.table}

    def params(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """The tree of the parameters that `shapes` describes.

        Raises BadCheckpoint for a parameter that is missing, of another shape, or too many.
        """
        if unknown := sorted(self.names() - shapes.keys()):
            raise _damaged(self.path, f"{unknown[0][:100]!r} is no parameter of its configuration")
        pages = LargePages()
        leaves = {name: self._leaf(name, shape) for name, shape in shapes.items()}
        return unflatten({name: jax.tree.map(pages.hold, leaf) for name, leaf in leaves.items()})

    def _leaf(self, name: str, shape: tuple[int, ...]) -> Leaf:
        if name in self.table:
            return self._array(name, shape, _DTYPES["F32"], _DTYPES["BF16"])
        if len(shape) != 2:
            raise _damaged(self.path, f"{name!r} is missing")
        out, features = shape
        groups = -(-features // GROUP)
        four = f"{name}.minimum" in self.table
        kind, width = (_DTYPES["U8"], GROUP // 2) if four else (_DTYPES["I8"], GROUP)
        values = self._array(f"{name}.values", (out, groups, width), kind)
        scale = self._array(f"{name}.scale", (out, groups), _DTYPES["F32"])
        minimum = self._array(f"{name}.minimum", (out, groups), _DTYPES["F32"]) if four else None
        return QTensor(values, scale, minimum, features)

    def _array(self, name: str, shape: tuple[int, ...], *dtypes: "np.dtype[Any]") -> jax.Array:
        entry = self.table.get(name)
        if entry is None:
            raise _damaged(self.path, f"{name[:100]!r} is missing")
        dtype, found = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        if found != shape or dtype not in dtypes:
            raise _damaged(
                self.path, f"{name[:100]!r} is {dtype} {found}; its configuration says {dtypes[0]} {shape}"
            )
        start, end = entry["data_offsets"]
        array: jax.Array = jax.device_put(self.data[start:end].view(dtype).reshape(shape))
        return array


def read_packed(path: Path) -> PackedWeights:
    """Maps the file and compares its checksum: 0.1 s for 150 MB.

    Raises BadCheckpoint in one line: no packed file, another version, damaged or truncated.
    """
    try:
        whole = _mapped(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    metadata, table, start = _header(path, whole)
    if metadata.get("format") != _FORMAT:
        raise BadCheckpoint(f"{path}: is not a file of packed weights")
    if metadata.get("version") != VERSION:
        raise BadCheckpoint(
            f"{path}: packed in format {metadata.get('version', '')[:20]!r}, and this Tarsia reads "
            f"{VERSION!r}: make it again with `tarsia models quantize`"
        )
    data = whole[start:]
    _check_table(path, table, len(data))
    if _checksum(metadata, table, data) != metadata.get("sha256"):
        raise _damaged(path, "its checksum differs")
    if (quant := metadata.get("quant")) not in get_args(Quant):
        raise _damaged(path, f"quant is {str(quant)[:20]!r}")
    return PackedWeights(path, quant, table, data)  # type: ignore[arg-type]


def _header(path: Path, whole: NDArray[np.uint8]) -> tuple[dict[str, str], dict[str, Any], int]:
    """(metadata, tensors, where the data begin)."""
    length = struct.unpack("<Q", whole[:8].tobytes())[0] if len(whole) >= 8 else 0
    if not 2 <= length <= min(len(whole) - 8, _LARGEST_HEADER):
        raise _damaged(path, f"a header of {length} bytes does not fit it")
    try:
        header = json.loads(whole[8 : 8 + length].tobytes())
        metadata = header.pop("__metadata__")
        texts = all(isinstance(value, str) for value in metadata.values())
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, "its header is not what safetensors want") from error
    if not texts:
        raise _damaged(path, "its metadata are not texts")
    return metadata, header, 8 + length


def _check_table(path: Path, table: _Table, size: int) -> None:
    """Each tensor's type, shape and place must agree, and lie inside the data."""
    for name, entry in table.items():
        try:
            shape, (start, end) = entry["shape"], entry["data_offsets"]
            whole = all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, start, end))
            fits = (
                whole and end <= size and end - start == math.prod(shape) * _DTYPES[entry["dtype"]].itemsize
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"its entry of {name[:100]!r} is not what safetensors want") from error
        if not fits:
            raise _damaged(path, f"{name[:100]!r} does not fit the file")


def _damaged(path: Path, reason: str) -> BadCheckpoint:
    return BadCheckpoint(
        f"{path}: damaged or truncated packed weights ({reason}); make them again with "
        "`tarsia models quantize`"
    )
