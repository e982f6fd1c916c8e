"""The header reader: equal to the gguf package's on good files, one clear error on bad ones."""

import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadCheckpoint, TarsiaError
from engine.weights import load_checkpoint
from engine.weights.gguf_container import read_gguf
from tests.engine.weights.gguf_files import write_llama


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "good.gguf"
    write_llama(path)
    return path.read_bytes()


def broken(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    return path


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def header(tensors: int, fields: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + rest


@pytest.fixture(params=["small", "smollm2"])
def real_file(request, tmp_path) -> Path:
    if request.param == "small":
        write_llama(tmp_path / "small.gguf")
        return tmp_path / "small.gguf"
    return next(request.getfixturevalue("smollm2_path").glob("*.gguf"))


def test_fields_and_places_equal_those_of_the_gguf_package(real_file):
    ours, theirs = read_gguf(real_file), GGUFReader(real_file)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.fields == fields
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        np.testing.assert_array_equal(found.raw.ravel(), tensor.data.view(np.uint8).ravel())


LIES = {
    "empty": b"",
    "not GGUF": b"PK\x03\x04" + bytes(64),
    "magic alone": b"GGUF",
    "version": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "tensor count": header(1 << 60, 0),
    "field count": header(0, 1 << 60, bytes(100)),
    "key length": header(0, 1, struct.pack("<Q", 1 << 62) + bytes(32)),
    "array length": header(0, 1, string(b"a") + struct.pack("<IIQ", 9, 4, 1 << 60) + bytes(32)),
    "string array": header(0, 1, string(b"a") + struct.pack("<IIQ", 9, 8, 1 << 40) + bytes(32)),
    "bool array": header(0, 1, string(b"a") + struct.pack("<IIQ", 9, 7, 1 << 60) + bytes(32)),
    "array of arrays": header(0, 1, string(b"a") + struct.pack("<IIQ", 9, 9, 1) + bytes(32)),
    "value type": header(0, 1, string(b"a") + struct.pack("<I", 77) + bytes(32)),
    "utf-8": header(0, 1, string(b"\xff\xfe") + struct.pack("<II", 4, 1)),
    "dimensions": header(1, 0, string(b"t") + struct.pack("<I", 1 << 31) + bytes(64)),
    "element count": header(1, 0, string(b"t") + struct.pack("<IQQIQ", 2, 1 << 63, 1 << 63, 0, 0)),
    "no elements": header(1, 0, string(b"t") + struct.pack("<IQIQ", 1, 0, 0, 0)),
    "tensor type": header(1, 0, string(b"t") + struct.pack("<IQIQ", 1, 4, 250, 0)),
    "block size": header(1, 0, string(b"t") + struct.pack("<IQIQ", 1, 33, 8, 0) + bytes(99)),
    "offset": header(1, 0, string(b"t") + struct.pack("<IQIQ", 1, 4, 0, 1 << 62) + bytes(99)),
    "alignment": header(0, 1, string(b"general.alignment") + struct.pack("<II", 4, 0)),
    "same name": header(2, 0, (string(b"t") + struct.pack("<IQIQ", 1, 4, 0, 0)) * 2 + bytes(99)),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_one_clear_error_without_time_or_memory(name, tmp_path):
    path = broken(tmp_path, LIES[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(BadCheckpoint) as caught:
        read_gguf(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert time.monotonic() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_is_a_bad_checkpoint(good, tmp_path_factory, data):
    cut = data.draw(st.integers(0, len(good) - 64))
    path = broken(tmp_path_factory.mktemp("cut"), good[:cut])
    with pytest.raises(BadCheckpoint):
        load_checkpoint(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_header_bytes_load_or_raise_our_error_and_nothing_else(good, tmp_path_factory, data):
    header_end = good.rindex(b"output_norm.weight") + 64
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, header_end))] = data.draw(st.integers(0, 255))
    path = broken(tmp_path_factory.mktemp("fuzz"), bytes(changed))
    try:
        load_checkpoint(path)
    except TarsiaError as error:
        assert "\n" not in str(error)


@pytest.mark.soak
def test_thousands_of_damaged_files_load_or_raise_our_error_and_nothing_else(good, tmp_path):
    header_end = good.rindex(b"output_norm.weight") + 64
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(3000):
        rng, changed = np.random.default_rng(seed), bytearray(good)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(0, header_end)] ^= 1 << rng.integers(0, 8)
        kept = len(good) if rng.random() < 0.8 else rng.integers(0, len(good))
        path = tmp_path / f"{seed}.gguf"
        path.write_bytes(changed[:kept])
        try:
            load_checkpoint(path)
        except TarsiaError as error:
            assert "\n" not in str(error)
        path.unlink()  # a new file each time: an older one may still be mapped
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
