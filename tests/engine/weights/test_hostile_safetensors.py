"""Safetensors files that lie, are cut or changed: they load, or one error of ours says why not."""

import json
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadCheckpoint, TarsiaError
from engine.weights import load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity" / "llama_gqa_tied"
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PARITY, tmp_path / "model"))


def with_header(data: bytes, header: bytes, length: int | None = None) -> bytes:
    (old,) = struct.unpack("<Q", data[:8])
    return struct.pack("<Q", len(header) if length is None else length) + header + data[8 + old :]


def lying(data: bytes, **changes: object) -> bytes:
    """The file whose header says something else of one tensor."""
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    header[NORM] |= changes
    return with_header(data, json.dumps(header).encode())


LIES = {
    "header length": lambda data: with_header(data, b"{}", 1 << 62),
    "header longer than the file": lambda data: with_header(data, b"{}", len(data) + 1),
    "no header": lambda data: struct.pack("<Q", 0),
    "not JSON": lambda data: with_header(data, b"x" * 64),
    "not an object": lambda data: with_header(data, b"[1, 2, 3]"),
    "nested": lambda data: with_header(data, b"[" * 100_000),
    "shape": lambda data: lying(data, shape=[1 << 40]),
    "overflowing shape": lambda data: lying(data, shape=[1 << 63, 1 << 63]),
    "negative shape": lambda data: lying(data, shape=[-64]),
    "end": lambda data: lying(data, data_offsets=[0, 1 << 62]),
    "turned offsets": lambda data: lying(data, data_offsets=[256, 0]),
    "dtype": lambda data: lying(data, dtype="F1024"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_one_clear_error_without_memory(name: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(LIES[name](path.read_bytes()))
    tracemalloc.start()
    with pytest.raises(BadCheckpoint, match="damaged or truncated") as caught:
        load_checkpoint(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    assert "\n" not in str(caught.value)


def survives(folder: Path, data: bytes, seed: int) -> None:
    """Loads the file with a few bytes changed, nearly all in its header, and perhaps its end cut off."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(rng.integers(1, 4)):
        changed[rng.integers(0, header if rng.random() < 0.9 else len(data))] ^= 1 << rng.integers(0, 8)
    kept = len(data) if rng.random() < 0.8 else rng.integers(0, len(data))
    (folder / "model.safetensors").write_bytes(bytes(changed[:kept]))
    try:
        load_checkpoint(folder)
    except TarsiaError as error:
        assert "\n" not in str(error)


def test_a_hundred_damaged_files_load_or_raise_our_error_and_nothing_else(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    for seed in range(100):
        survives(folder, data, seed)


@pytest.mark.soak
def test_thousands_of_damaged_files_load_or_raise_our_error_and_nothing_else(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    for seed in range(100, 3000):
        survives(folder, data, seed)
