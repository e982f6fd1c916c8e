import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadCheckpoint, InvalidRequest, UnsupportedModel
from engine.registry import PACKED
from engine.weights import Checkpoint, load_checkpoint
from engine.weights.gguf_settings import SETTINGS
from engine.weights.packed_folder import save_packed
from engine.weights.policy import Quant
from tests.engine.weights.gguf_of_hf import write_gguf
from tests.engine.weights.trees import assert_same_bits, files_end_at

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
FOLDERS = ("llama_gqa_tied", "phi3_longrope", "gemma2_softcap", "modernbert_reranker", "colbert")
IMAGES = ("vit_hf_classifier", "dinov2_hf", "siglip_tower")
GGUFS = ("llama3_mqa_bias", "phi3_longrope", "gemma2_softcap", "llama_gqa_tied")
OVERRIDES = ("layers.0.*=int8", "layers.1.*=f32")


def assert_same_model(found: Checkpoint, wanted: Checkpoint) -> None:
    assert_same_bits(found.params, wanted.params)
    for name in ("architecture", "kind", "quant", "config", "chat_template", "eos_ids", "colbert", "prompts"):
        assert getattr(found, name) == getattr(wanted, name), name


@pytest.mark.parametrize("quant", ["int8", "int4", "bf16"])
@pytest.mark.parametrize("family", [*FOLDERS, *IMAGES])
def test_a_folder_with_safetensors_comes_back_as_it_was(family: str, quant: Quant, tmp_path: Path) -> None:
    wanted = load_checkpoint(PARITY / family, quant=quant, overrides=OVERRIDES)
    found = load_checkpoint(save_packed(wanted, tmp_path / "small"))
    assert_same_model(found, wanted)
    assert found.identity != wanted.identity


def test_both_towers_of_clip_come_back_as_they_were(tmp_path: Path) -> None:
    wanted = load_checkpoint(PARITY / "clip_small", quant="int8")
    found = load_checkpoint(save_packed(wanted, tmp_path / "small"))
    assert_same_model(found, wanted)
    assert found.preprocessing == wanted.preprocessing


def test_image_models_whose_files_hold_no_configuration_cannot_be_packed(tmp_path: Path) -> None:
    model = load_checkpoint(PARITY / "timm_vit", quant="int8")
    with pytest.raises(UnsupportedModel, match="Hugging Face's layout or GGUF"):
        save_packed(model, tmp_path / "small")
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("family", GGUFS)
def test_a_gguf_comes_back_as_it_was(family: str, tmp_path: Path) -> None:
    write_gguf(PARITY / family, tmp_path / "model.gguf")
    wanted = load_checkpoint(tmp_path / "model.gguf", quant="int4", overrides=OVERRIDES)
    folder = save_packed(wanted, tmp_path / "small")
    assert_same_model(load_checkpoint(folder), wanted)
    assert_same_model(load_checkpoint(folder / SETTINGS), wanted)


def test_a_gguf_in_parts_comes_back_as_it_was(tmp_path: Path) -> None:
    write_gguf(PARITY / "qwen2_bias", tmp_path / "model.gguf", tensors_per_file=15)
    wanted = load_checkpoint(tmp_path, quant="int8")
    assert_same_model(load_checkpoint(save_packed(wanted, tmp_path / "small")), wanted)


def test_a_packed_folder_can_be_packed_again(tmp_path: Path) -> None:
    wanted = load_checkpoint(save_packed(load_checkpoint(PARITY / "colbert", quant="int8"), tmp_path / "one"))
    assert_same_model(load_checkpoint(save_packed(wanted, tmp_path / "two")), wanted)


def test_the_real_model_keeps_its_tokenizer_and_template(smollm2_path: Path, tmp_path: Path) -> None:
    wanted = load_checkpoint(smollm2_path, quant="int4")
    found = load_checkpoint(save_packed(wanted, tmp_path / "small"))
    assert_same_model(found, wanted)
    assert found.tokenizer is not None and wanted.tokenizer is not None
    text = "Grüße, 世界! def f(x):\n    return x<|im_end|>"
    assert found.tokenizer.encode(text) == wanted.tokenizer.encode(text)
    assert found.chat_template


def test_an_embedding_model_keeps_its_tokenizer_and_pooling(minilm_path: Path, tmp_path: Path) -> None:
    wanted = load_checkpoint(minilm_path, quant="int8")
    found = load_checkpoint(save_packed(wanted, tmp_path / "small"))
    assert_same_model(found, wanted)
    assert found.tokenizer is not None and wanted.tokenizer is not None
    assert found.tokenizer.encode("a happy dog") == wanted.tokenizer.encode("a happy dog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_packed(load_checkpoint(PARITY / "llama_gqa_tied", quant="int4"), tmp_path / "small")


def test_another_form_than_it_is_packed_in_is_refused_and_its_own_is_not(folder: Path) -> None:
    assert load_checkpoint(folder, quant="int4").quant == "int4"
    with pytest.raises(UnsupportedModel, match="packed as int4; load it without another quant"):
        load_checkpoint(folder, quant="int8")


def test_nothing_is_written_over(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(InvalidRequest, match="small exists; name a folder that does not"):
        save_packed(load_checkpoint(PARITY / "llama_gqa_tied", quant="int8"), folder)
    assert sorted(folder.iterdir()) == before


def test_a_full_disk_leaves_no_folder(tmp_path: Path) -> None:
    model = load_checkpoint(PARITY / "llama_gqa_tied", quant="int8")
    with files_end_at(4096), pytest.raises(OSError):
        save_packed(model, tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_configuration_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "intermediate_size": 2 * config["intermediate_size"]})
    )
    with pytest.raises(BadCheckpoint, match="its configuration says"):
        load_checkpoint(folder)


@pytest.mark.parametrize("size", [0, 3, 24, 200])
def test_damaged_settings_are_refused_in_one_line(size: int, tmp_path: Path) -> None:
    write_gguf(PARITY / "llama_gqa_tied", tmp_path / "model.gguf")
    folder = save_packed(load_checkpoint(tmp_path / "model.gguf", quant="int8"), tmp_path / "small")
    (folder / SETTINGS).write_bytes((folder / SETTINGS).read_bytes()[:size])
    with pytest.raises(BadCheckpoint) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_licences_go_with_the_copy(tmp_path: Path) -> None:
    origin = Path(shutil.copytree(PARITY / "llama_gqa_tied", tmp_path / "origin"))
    (origin / "LICENSE.txt").write_text("terms")
    (origin / "pytorch_model.bin").write_bytes(b"a pickle")
    folder = save_packed(load_checkpoint(origin, quant="int8"), tmp_path / "small")
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE.txt", "config.json", PACKED]
    np.testing.assert_equal((folder / "LICENSE.txt").read_text(), "terms")
