import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.errors import BadCheckpoint
from engine.weights import packed
from engine.weights.packed import read_packed, write_packed
from engine.weights.policy import Quant
from engine.weights.tree import flatten
from tests.engine.weights.trees import assert_same_bits, files_end_at, random_tree, shapes_of

FORMS: list[tuple[Quant, tuple[str, ...]]] = [
    ("f32", ()),
    ("bf16", ()),
    ("int8", ()),
    ("int4", ()),
    ("int4", ("layers.0.*=int8", "layers.1.*=bf16", "embed=int4")),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_packed(tmp_path / "weights", random_tree("int4"), "int4")
    return tmp_path / "weights"


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), data[end:]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    """Changes the header; with `seal` its checksum is right, as a liar would make it."""
    header, data = split(path)
    change(header)
    metadata = header.pop("__metadata__")
    if seal:
        metadata["sha256"] = packed._checksum(metadata, header, np.frombuffer(data, np.uint8))
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refusal(path: Path, shapes: dict[str, tuple[int, ...]] | None = None) -> str:
    """What is said of it, in one line that names the file, and with little memory."""
    tracemalloc.start()
    with pytest.raises(BadCheckpoint) as caught:
        read_packed(path).params(shapes or shapes_of(random_tree("int4")))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("quant", "overrides"), FORMS)
def test_what_was_written_is_read_bit_for_bit(
    quant: Quant, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    params = random_tree(quant, overrides)
    write_packed(tmp_path / "weights", params, quant)
    found = read_packed(tmp_path / "weights")
    assert found.quant == quant
    assert found.names() == flatten(params).keys()
    assert_same_bits(found.params(shapes_of(params)), params)


def test_other_readers_of_safetensors_read_it(tmp_path: Path) -> None:
    params = random_tree("int8")
    write_packed(tmp_path / "weights", params, "int8")
    found, leaf = load_file(tmp_path / "weights"), flatten(params)["layers.1.q.weight"]
    np.testing.assert_array_equal(found["layers.1.q.weight.values"], leaf.values)
    np.testing.assert_array_equal(found["layers.1.q.weight.scale"], leaf.scale)
    np.testing.assert_array_equal(found["norm"], params["norm"])


def test_a_file_cut_short_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, *range(64, len(whole), len(whole) // 60), len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "damaged or truncated" in refusal(path)


def test_a_changed_byte_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for at in (*range(16), *range(16, len(whole), len(whole) // 150), len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        refusal(path)


@pytest.mark.parametrize("length", [0, 1, 1 << 20, 1 << 40, (1 << 63) + 5, (1 << 64) - 1])
def test_a_header_that_lies_about_its_length_is_refused(path: Path, length: int) -> None:
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert "damaged or truncated" in refusal(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [72], "data_offsets": [0, 1 << 46]},
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 288]},
        {"dtype": "F32", "shape": [1 << 44], "data_offsets": [0, 1 << 46]},
        {"dtype": "F32", "shape": [-72], "data_offsets": [288, 0]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [72], "data_offsets": [0]},
        {"dtype": "F32", "shape": 72, "data_offsets": [0, 288]},
        {"dtype": "F64", "shape": [36], "data_offsets": [0, 288]},
        {"dtype": ["F32"], "shape": [72], "data_offsets": [0, 288]},
        {"dtype": "F32", "shape": [72]},
        [],
        None,
    ],
)
def test_a_tensor_that_lies_about_itself_is_refused(path: Path, entry: Any) -> None:
    rewrite(path, lambda header: header.update(norm=entry))
    assert "'norm'" in refusal(path)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("norm", {"dtype": "I8", "shape": [72], "data_offsets": [0, 72]}),
        ("norm", {"dtype": "F32", "shape": [71], "data_offsets": [0, 284]}),
        ("embed.values", {"dtype": "U8", "shape": [50, 3, 32], "data_offsets": [0, 4800]}),
        ("embed.scale", {"dtype": "F32", "shape": [3, 50], "data_offsets": [0, 600]}),
        ("layers.0.q.weight.minimum", {"dtype": "BF16", "shape": [40, 3], "data_offsets": [0, 240]}),
    ],
)
def test_another_type_or_shape_than_the_configuration_says_is_refused(
    path: Path, name: str, entry: Any
) -> None:
    rewrite(path, lambda header: header.update({name: entry}))
    assert f"{name!r} is " in refusal(path)


def test_missing_and_foreign_parameters_are_named(path: Path) -> None:
    shapes = shapes_of(random_tree("int4"))
    assert "'head.values' is missing" in refusal(path, {**shapes, "head": (50, 72)})
    assert "'q_norm' is missing" in refusal(path, {**shapes, "q_norm": (72,)})
    del shapes["norm"]
    assert "'norm' is no parameter" in refusal(path, shapes)


def test_a_checksum_that_is_wrong_or_left_out_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for change in (
        lambda header: header["__metadata__"].update(sha256="0" * 64),
        lambda header: header["__metadata__"].pop("sha256"),
        lambda header: header["__metadata__"].update(quant="int8"),
    ):
        path.write_bytes(whole)
        rewrite(path, change, seal=False)
        assert "its checksum differs" in refusal(path)


def test_another_version_says_how_to_make_it_again(path: Path) -> None:
    rewrite(path, lambda header: header["__metadata__"].update(version="999"))
    assert "'999', and this Tarsia reads '1': make it again with `tarsia models quantize`" in refusal(path)


def test_a_plain_checkpoint_is_no_packed_file(tmp_path: Path) -> None:
    save_file({"norm": np.ones(8, np.float32)}, tmp_path / "weights", metadata={"format": "pt"})
    assert "is not a file of packed weights" in refusal(tmp_path / "weights")


@pytest.mark.parametrize("header", [b"[]", b"{}", b"null", b'{"__metadata__": 3}', b"[" * 100_000])
def test_a_header_of_another_form_is_refused(path: Path, header: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    refusal(path)


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, path: Path) -> None:
    before = path.read_bytes()
    with files_end_at(4096), pytest.raises(OSError):
        write_packed(path, random_tree("int8"), "int8")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_can_be_replaced_while_its_weights_are_used(path: Path) -> None:
    wanted = random_tree("int4")
    used = read_packed(path).params(shapes_of(wanted))
    write_packed(path, random_tree("int8"), "int8")
    assert_same_bits(used, wanted)
    path.unlink()
    assert_same_bits(used, wanted)
