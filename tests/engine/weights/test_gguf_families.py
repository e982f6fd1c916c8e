"""Checkpoints of each family written as GGUF give what transformers gives for the originals."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadCheckpoint
from engine.models import decoder
from engine.ops.jit import compile
from engine.weights import load_checkpoint
from tests.engine.weights.gguf_of_hf import write_gguf

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
FAMILIES = (
    "gemma2_softcap",
    "gemma3_sliding",
    "gemma_mqa",
    "llama3_mqa_bias",
    "llama_gqa_tied",
    "phi3_longrope",
    "qwen2_bias",
    "qwen3_qknorm",
)


def difference(path: Path, family: str) -> float:
    model, io = load_checkpoint(path), np.load(PARITY / family / "io.npz")
    logits = compile(decoder.forward, static_argnums=1)(model.params, model.config, io["input_ids"])
    return float(np.abs(np.asarray(logits) - io["logits"]).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_a_gguf_equal_those_of_the_original(family, tmp_path):
    write_gguf(PARITY / family, tmp_path / "model.gguf")
    assert difference(tmp_path / "model.gguf", family) < 2e-4


@pytest.fixture
def parts(tmp_path) -> list[Path]:
    """A model in several files, as the gguf package splits it."""
    write_gguf(PARITY / "qwen2_bias", tmp_path / "model.gguf", tensors_per_file=15)
    found = sorted(tmp_path.glob("*.gguf"))
    assert found[0].name == f"model-00001-of-{len(found):05d}.gguf" and len(found) > 2
    return found


def test_a_model_in_parts_loads_by_its_folder_and_by_any_part(parts):
    assert difference(parts[0].parent, "qwen2_bias") < 2e-4
    models = [load_checkpoint(path) for path in (parts[0], parts[2])]
    assert models[0].identity == models[1].identity
    assert models[0].config == models[1].config


def test_a_missing_part_is_named(parts):
    parts[1].unlink()
    with pytest.raises(BadCheckpoint, match=rf"{parts[1].name}: is missing"):
        load_checkpoint(parts[0])


def test_the_first_part_is_wanted_even_when_another_is_given(parts):
    parts[0].unlink()
    for path in (parts[1], parts[1].parent):
        with pytest.raises(BadCheckpoint, match=rf"{parts[0].name}: is missing"):
            load_checkpoint(path)


def test_parts_in_the_wrong_place_are_refused(parts):
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(BadCheckpoint, match="another part than its name"):
        load_checkpoint(parts[0])


def test_a_part_under_a_name_of_its_own_is_refused(parts):
    alone = parts[0].rename(parts[0].with_name("alone.gguf"))
    with pytest.raises(BadCheckpoint, match=rf"one of {len(parts)} parts"):
        load_checkpoint(alone)
