"""What a GGUF file says beside its weights, as a small GGUF file of its own, for packed folders."""

import struct
from pathlib import Path

import numpy as np

from engine.weights.gguf import GgufSource
from engine.weights.gguf_container import GgufFile

SETTINGS = "settings.gguf"
FACTORS = ("rope_freqs", "rope_factors_short", "rope_factors_long")
"""Tensors that belong to the configuration: what RoPE's frequencies are divided by."""
_F32 = 0


def write_settings(file: GgufFile, path: Path) -> None:
    """Writes the metadata as they are, the tensors of `FACTORS` in float32, and no weights."""
    fields = [encoded for key, encoded in file.encoded.items() if not key.startswith("split.")]
    names = [f"{name}.weight" for name in FACTORS if f"{name}.weight" in file.tensors]
    alignment = file.fields.get("general.alignment", 32)
    infos, data = b"", b""
    for name in names:
        values = GgufSource(file).array(name)
        shape = tuple(reversed(values.shape))
        infos += struct.pack("<Q", len(name)) + name.encode()
        infos += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, len(data))
        data += np.ascontiguousarray(values, np.float32).tobytes()
        data += bytes(-len(data) % alignment)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), len(fields)) + b"".join(fields) + infos
    path.write_bytes(head + bytes(-len(head) % alignment) + data)
