"""ONNX files written byte by byte, as PyTorch's exporter lays a vision transformer out."""

import struct

import numpy as np


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def part(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: np.ndarray, *, kind: int = 1, packed: bool = True, raw: bool = True) -> bytes:
    """An initialiser; `packed` and `raw` are the two ways each to write axes and float32 numbers."""
    sides = [varint(side) for side in array.shape]
    axes = part(1, b"".join(sides)) if packed else b"".join(varint(1 << 3) + side for side in sides)
    data = part(9 if raw else 4, array.tobytes())
    return part(5, axes + varint(2 << 3) + varint(kind) + data + part(8, name.encode()))


def node(op: str, inputs: list[str], outputs: list[str]) -> bytes:
    names = b"".join(part(1, name.encode()) for name in inputs)
    return part(1, names + b"".join(part(2, name.encode()) for name in outputs) + part(4, op.encode()))


def model(*graph: bytes) -> bytes:
    """With fields around the graph that a reader has to pass over: numbers, a text, a double, a float."""
    others = varint(1 << 3) + varint(8) + part(2, b"test")
    extra = varint(12 << 3 | 1) + struct.pack("<d", 1.0) + varint(13 << 3 | 5) + struct.pack("<f", 2.0)
    return others + part(7, b"".join(graph) + part(2, b"main_graph")) + extra


def exported(tensors: dict[str, np.ndarray], prefix: str = "backbone.") -> bytes:
    """Matrices nameless and turned round, beside the biases that their products meet; positions in two."""
    parts = []
    for number, (name, array) in enumerate(tensors.items()):
        if name == "embeddings.position_embeddings":
            parts += [tensor("onnx::Concat_1", array[:, :1]), tensor("onnx::Reshape_2", array[:, 1:])]
        elif array.ndim == 2 and name.endswith(".weight"):
            hidden, bias = f"onnx::MatMul_{number}", prefix + name.removesuffix("weight") + "bias"
            parts.append(tensor(hidden, np.ascontiguousarray(array.T), raw=number % 2 == 0))
            parts.append(node("MatMul", [f"/in_{number}", hidden], [f"/out_{number}"]))
            parts.append(node("Add", [bias, f"/out_{number}"], [f"/sum_{number}"]))
        else:
            parts.append(tensor(prefix + name, array, packed=number % 2 == 0))
    parts.append(tensor("decoder.final.weight", np.ones((1, 4, 1, 1), np.float32)))
    parts.append(tensor("onnx::Unsqueeze_9", np.array([1, 2]), kind=7))
    return model(*parts)
