"""Tensors of a GGUF file as the models want them: half-split RoPE order, float32 or groups of 32."""

from collections.abc import Collection

import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from engine.errors import UnsupportedModel
from engine.ops.quant import GROUP, QTensor, QuantKind, quantize
from engine.weights.gguf_container import GgufFile
from engine.weights.source import ALL

SUPPORTED_TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "IQ4_NL"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)
_HALF_BLOCK = GROUP // 2


class GgufSource:
    """Tensors of one GGUF file.

    llama.cpp's converter interleaves the rows of q and k of architecture `llama` (numbers 2i and
    2i + 1 of a head are a RoPE pair); this source puts them back into half-split order, which for
    quantised rows costs no accuracy, since blocks run along rows.
    """

    def __init__(self, file: GgufFile) -> None:
        self.label = str(file.path)
        self._file = file
        for tensor in file.tensors.values():
            if tensor.type.name not in SUPPORTED_TYPES:
                raise UnsupportedModel(
                    f"{file.path}: tensor {tensor.name[:80]!r} has type {tensor.type.name}, not one of "
                    + ", ".join(SUPPORTED_TYPES)
                )

    def names(self) -> Collection[str]:
        return self._file.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file.tensors[name].shape

    def array(self, name: str, rows: slice = ALL) -> NDArray[np.float32]:
        tensor = self._file.tensors[name]
        # A vector is one row of the file but as many rows to whoever asks for some of them.
        whole = len(tensor.shape) == 1
        wide = dequantize(self._rows(name)[ALL if whole else rows], tensor.type)
        wide = np.ascontiguousarray(wide, dtype=np.float32)
        return wide.reshape(-1)[rows] if whole else wide.reshape(-1, *tensor.shape[1:])

    def quantized(self, name: str, kind: QuantKind, rows: slice = ALL) -> QTensor:
        features = self.shape(name)[-1]
        take = _TAKERS.get((kind, self._file.tensors[name].type))
        return take(self._rows(name)[rows], features) if take else quantize(self.array(name, rows), kind)

    def _rows(self, name: str) -> NDArray[np.uint8]:
        """The tensor's bytes, a row each, in half-split order."""
        tensor = self._file.tensors[name]
        raw = tensor.raw
        heads = self._interleaved_heads(name)
        if not heads:
            return raw
        if len(tensor.shape) == 1:
            raw = raw.reshape(tensor.shape[0], -1)
        return raw.reshape(heads, -1, 2, raw.shape[1]).swapaxes(1, 2).reshape(raw.shape)

    def _interleaved_heads(self, name: str) -> int:
        """How many heads of interleaved rows the tensor has; 0 if its rows are in order."""
        fields = self._file.fields
        if fields.get("general.architecture") != "llama":
            return 0
        heads = fields.get("llama.attention.head_count", 0)
        if ".attn_q." in name:
            return int(heads)
        return int(fields.get("llama.attention.head_count_kv", heads)) if ".attn_k." in name else 0


def _blocks(rows: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(out, bytes of a row) -> (out, groups, size)."""
    return rows.reshape(rows.shape[0], -1, size)


def _halves(block_bytes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two bytes of each block, as the float16 they are."""
    return np.ascontiguousarray(block_bytes).view("<f2")[..., 0].astype(np.float32)


def _from_q8_0(rows: NDArray[np.uint8], features: int) -> QTensor:
    blocks = _blocks(rows, 2 + GROUP)
    values = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return QTensor(jnp.asarray(values), jnp.asarray(_halves(blocks[..., :2])), None, features)


def _from_q4_0(rows: NDArray[np.uint8], features: int) -> QTensor:
    blocks = _blocks(rows, 2 + _HALF_BLOCK)
    scale = _halves(blocks[..., :2])
    packed = np.ascontiguousarray(blocks[..., 2:])
    return QTensor(jnp.asarray(packed), jnp.asarray(scale), jnp.asarray(-8 * scale), features)


def _from_q4_1(rows: NDArray[np.uint8], features: int) -> QTensor:
    blocks = _blocks(rows, 4 + _HALF_BLOCK)
    packed = np.ascontiguousarray(blocks[..., 4:])
    scale, minimum = _halves(blocks[..., :2]), _halves(blocks[..., 2:4])
    return QTensor(jnp.asarray(packed), jnp.asarray(scale), jnp.asarray(minimum), features)


_TAKERS = {
    ("int8", GGMLQuantizationType.Q8_0): _from_q8_0,
    ("int4", GGMLQuantizationType.Q4_0): _from_q4_0,
    ("int4", GGMLQuantizationType.Q4_1): _from_q4_1,
}
"""Blocks of a file that a QTensor of a kind holds exactly."""
