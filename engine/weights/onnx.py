"""The weights of an exported PyTorch model in an ONNX file, under the names its modules had."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadCheckpoint
from engine.ops.quant import QTensor, QuantKind, quantize
from engine.weights.onnx_container import OnnxFile, OnnxTensor
from engine.weights.source import ALL

_ANONYMOUS = "onnx::"
_CLS = "embeddings.cls_token"
_POSITION = "embeddings.position_embeddings"


@dataclass(frozen=True)
class _Place:
    """Tensors joined along the second axis; a matrix may lie transposed, (in, out)."""

    parts: tuple[OnnxTensor, ...]
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.parts[0].shape
        if self.transposed:
            return shape[::-1]
        return (shape[0], sum(part.shape[1] for part in self.parts), *shape[2:]) if self.parts[1:] else shape

    def array(self) -> NDArray[np.float32]:
        if self.parts[1:]:
            return np.concatenate([part.array() for part in self.parts], axis=1)
        found = self.parts[0].array()
        return np.ascontiguousarray(found.T) if self.transposed else found


class OnnxSource:
    """Tensors of an ONNX file by their module's name, as `build` takes them.

    The exporter keeps the names of biases, norms and convolutions. Matrices it names after their operator
    and turns round: each gets its name back from the bias that is added to its product. A table of
    positions that it cuts into the class token's and the grid's is joined again. `prefix` of a backbone is
    left off; other parts of the graph (heads of their own) are there under their names.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.label = str(file.path)
        named = {name: _Place((tensor,)) for name, tensor in file.tensors.items() if _is_weight(name)}
        named |= _matrices(file)
        prefix = next((name.removesuffix(_CLS) for name in named if name.endswith(_CLS)), "")
        self._places = {name.removeprefix(prefix): place for name, place in named.items()}
        if _CLS in self._places and _POSITION not in self._places:
            self._places[_POSITION] = _positions(file, self._places[_CLS].shape)

    def names(self) -> Collection[str]:
        return self._places.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name].shape

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        found = self._places[name].array()
        return found if rows == ALL else found[rows]

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        return quantize(self.array(name, rows), kind)


def _is_weight(name: str) -> bool:
    return not name.startswith((_ANONYMOUS, "/")) and "." in name


def _matrices(file: OnnxFile) -> dict[str, _Place]:
    """`x @ matrix + bias`: the matrix is the weight of the bias's module."""
    made = {output: node for node in file.nodes for output in node.outputs}
    found = {}
    for node in file.nodes:
        biases = [name for name in node.inputs if name in file.tensors and name.endswith(".bias")]
        products = [made[name] for name in node.inputs if name in made and made[name].op == "MatMul"]
        if node.op != "Add" or len(biases) != 1 or len(products) != 1:
            continue
        for name in products[0].inputs:
            if name in file.tensors and len(file.tensors[name].shape) == 2:
                weight = f"{biases[0].removesuffix('.bias')}.weight"
                found[weight] = _Place((file.tensors[name],), transposed=True)
    return found


def _positions(file: OnnxFile, cls_shape: tuple[int, ...]) -> _Place:
    """The class token's row (1, 1, hidden) and the grid's (1, side * side, hidden), both without a name."""
    nameless = [tensor for name, tensor in file.tensors.items() if name.startswith(_ANONYMOUS)]
    alike = [tensor for tensor in nameless if len(tensor.shape) == 3 and tensor.shape[2] == cls_shape[-1]]
    rows = [tensor for tensor in alike if tensor.shape[1] == 1]
    grids = [tensor for tensor in alike if tensor.shape[1] > 1 and _is_square(tensor.shape[1])]
    if len(rows) != 1 or len(grids) != 1:
        raise BadCheckpoint(f"{file.path}: has no table of positions that can be told from other tensors")
    return _Place((rows[0], grids[0]))


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
