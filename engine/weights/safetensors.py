"""Safetensors checkpoints: one file, or several behind model.safetensors.index.json."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.ops.quant import QTensor, QuantKind, quantize
from engine.weights.files import inside, read_object
from engine.weights.source import ALL

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = ("F32", "F16", "BF16", "F64")


class SafetensorsSource:
    """Tensors of a folder, memory-mapped; one is read at a time.

    The library checks header and offsets against the file's size; `build` checks names and shapes.
    """

    def __init__(self, folder: Path) -> None:
        self.label = str(folder)
        self.paths = tensor_files(folder)
        self._files: dict[str, Any] = {}
        for path in self.paths:
            file = _open(path)
            self._files.update(dict.fromkeys(file.keys(), file))

    def names(self) -> Collection[str]:
        return self._files.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        tensor = self._files[name].get_slice(name)
        dtype = tensor.get_dtype()
        if dtype not in _DTYPES:
            raise UnsupportedModel(
                f"{self.label}: tensor {name} has type {dtype}, not one of {', '.join(_DTYPES)}"
            )
        found = self._files[name].get_tensor(name) if rows == ALL else tensor[rows]
        return np.asarray(found, dtype=np.float32, order="C")

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        return quantize(self.array(name, rows), kind)


def tensor_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in the order of their names. BadCheckpoint if one is missing."""
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    index = read_object(folder / INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadCheckpoint(f"{folder / INDEX}: weight_map is missing or empty")
    return tuple(inside(folder, name) for name in sorted({str(file) for file in weight_map.values()}))


def _open(path: Path) -> Any:
    if not path.is_file():
        raise BadCheckpoint(f"{path}: is missing; fetch the model again")
    try:
        return safe_open(str(path), framework="np")
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path}: damaged or truncated ({error}); fetch the model again") from error
