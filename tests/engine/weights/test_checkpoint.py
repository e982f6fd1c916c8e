import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.errors import BadCheckpoint, ModelNotFound, UnsupportedModel
from engine.models import decoder
from engine.weights import load_checkpoint
from engine.weights.checkpoint import checkpoint_kind
from tests.engine.weights.gguf_files import write_llama

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(PARITY / "llama_gqa_tied", tmp_path / "llama"))


@pytest.fixture
def bert(tmp_path) -> Path:
    return Path(shutil.copytree(PARITY / "bert_minilm", tmp_path / "bert"))


def rewrite(folder: Path, **changes: np.ndarray | None) -> None:
    """Saves the weights with tensors replaced, added or (None) left out."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "model.safetensors")


def configure(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **changes}))


def logits(folder: Path) -> np.ndarray:
    model = load_checkpoint(folder)
    return np.asarray(decoder.forward(model.params, model.config, np.arange(10)[None]))


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names, half = sorted(tensors), len(tensors) // 2
    parts = {"model-1-of-2.safetensors": names[:half], "model-2-of-2.safetensors": names[half:]}
    for part, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / part)
    index = {"weight_map": {name: part for part, members in parts.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def test_a_sharded_checkpoint_equals_the_single_file(folder):
    before = logits(folder)
    shard(folder)
    np.testing.assert_array_equal(logits(folder), before)


def test_a_missing_shard_is_named(folder):
    shard(folder)
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"model-2-of-2\.safetensors: is missing"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b"])
def test_an_index_cannot_point_outside_the_folder(folder, name):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(BadCheckpoint, match="not a file inside"):
        load_checkpoint(folder)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_are_read(folder, dtype):
    before = logits(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v.astype(dtype) for k, v in tensors.items()}, folder / "model.safetensors")
    tolerance = 0.3 if dtype is ml_dtypes.bfloat16 else 0.05
    np.testing.assert_allclose(logits(folder), before, atol=tolerance)


def test_integer_weights_are_refused_by_name(folder):
    rewrite(folder, **{"model.norm.weight": np.ones(64, np.int8)})
    with pytest.raises(UnsupportedModel, match=r"model.norm.weight has type I8.*BF16"):
        load_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 1000, -4])
def test_a_truncated_file_is_one_clear_error(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadCheckpoint, match="damaged or truncated") as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_named(folder):
    rewrite(folder, **{"model.layers.1.mlp.up_proj.weight": None})
    with pytest.raises(BadCheckpoint, match=r"lack 'model.layers.1.mlp.up_proj.weight'"):
        load_checkpoint(folder)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(folder):
    rewrite(folder, **{"model.layers.0.self_attn.k_proj.weight": np.zeros((64, 64), np.float32)})
    with pytest.raises(BadCheckpoint, match=r"k_proj.weight has shape \(64, 64\).*says \(32, 64\)"):
        load_checkpoint(folder)


def test_a_tensor_the_model_would_leave_unused_is_named(folder):
    rewrite(folder, **{"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"no place for 'model.layers.0.self_attn.q_proj.bias'"):
        load_checkpoint(folder)


def test_buffers_and_a_copy_of_the_tied_head_are_passed_over(folder):
    before = logits(folder)
    extra = {"lm_head.weight": np.zeros((320, 64), np.float32)}
    extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
    rewrite(folder, **extra)
    np.testing.assert_array_equal(logits(folder), before)


def test_a_base_model_without_the_model_prefix_loads(folder):
    before = logits(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({k.removeprefix("model."): v for k, v in tensors.items()}, folder / "model.safetensors")
    np.testing.assert_array_equal(logits(folder), before)


def test_a_bert_prefix_and_pretraining_heads_are_accepted(bert):
    before = load_checkpoint(bert).params
    tensors = {"bert." + k: v for k, v in load_file(bert / "model.safetensors").items()}
    tensors["cls.predictions.bias"] = np.zeros(320, np.float32)
    save_file(tensors, bert / "model.safetensors")
    after = load_checkpoint(bert).params
    np.testing.assert_array_equal(before["embed"]["word"], after["embed"]["word"])


def test_an_unknown_architecture_names_all_that_are_supported(folder):
    configure(folder, model_type="gpt_neox")
    with pytest.raises(
        UnsupportedModel,
        match=r"gpt_neox.*bert, camembert, clip, .*dinov2, .*gemma, gemma2, gemma3_text, llama, mistral, "
        "modernbert, .*siglip, siglip_vision_model, vit, ",
    ):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"model_type": 3}', "\udcff"])
def test_a_damaged_config_is_one_clear_error(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadCheckpoint, match=r"config.json"):
        load_checkpoint(folder)


def test_places_without_a_model_are_told_apart(tmp_path):
    with pytest.raises(ModelNotFound, match="tarsia models list"):
        load_checkpoint(tmp_path / "nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BadCheckpoint, match="never read"):
        load_checkpoint(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"\.gguf"):
        load_checkpoint(tmp_path / "pytorch_model.bin")


def test_a_folder_with_one_gguf_loads_and_with_two_asks_which(tmp_path):
    write_llama(tmp_path / "a.gguf")
    assert load_checkpoint(tmp_path).kind == "decoder"
    shutil.copy(tmp_path / "a.gguf", tmp_path / "b.gguf")
    with pytest.raises(BadCheckpoint, match=r"2 \.gguf files"):
        load_checkpoint(tmp_path)


def test_the_kind_of_a_model_is_known_without_loading_it(folder, bert, tmp_path):
    write_llama(tmp_path / "a.gguf")
    shutil.copy(tmp_path / "a.gguf", bert)
    paths = {folder: "decoder", bert: "encoder", tmp_path / "a.gguf": "decoder"}
    for path, kind in paths.items():
        assert checkpoint_kind(path) == load_checkpoint(path).kind == kind


def test_a_folder_without_a_tokenizer_loads_for_token_ids_alone(folder):
    model = load_checkpoint(folder, quant="int8")
    assert model.tokenizer is None
    assert (model.kind, model.architecture, model.quant, model.eos_ids) == ("decoder", "llama", "int8", (2,))


def test_end_tokens_may_be_a_list_and_generation_config_comes_first(folder):
    configure(folder, eos_token_id=[2, 5])
    assert load_checkpoint(folder).eos_ids == (2, 5)
    configure(folder, "generation_config.json", eos_token_id=[7, 8])
    assert load_checkpoint(folder).eos_ids == (7, 8)


def test_chat_templates_are_found_wherever_they_are_kept(folder):
    assert load_checkpoint(folder).chat_template is None
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    configure(folder, "tokenizer_config.json", chat_template=named)
    assert load_checkpoint(folder).chat_template == "D"
    configure(folder, "tokenizer_config.json", chat_template="plain")
    assert load_checkpoint(folder).chat_template == "plain"
    (folder / "chat_template.jinja").write_text("file")
    assert load_checkpoint(folder).chat_template == "file"


def test_the_real_gguf_brings_tokenizer_template_and_end_token(smollm2_path):
    model = load_checkpoint(smollm2_path, quant="int4")
    assert model.tokenizer is not None and model.tokenizer.vocab_size == model.config.vocab_size
    assert model.chat_template is not None and "<|im_start|>" in model.chat_template
    assert model.eos_ids == (2,)


def test_identity_follows_the_content_and_not_the_place(folder, tmp_path):
    first = load_checkpoint(folder).identity
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert load_checkpoint(moved).identity == first
    weights = load_file(folder / "model.safetensors")["model.norm.weight"]
    rewrite(moved, **{"model.norm.weight": weights * 1.01})
    assert load_checkpoint(moved).identity != first
    configure(folder, rms_norm_eps=1e-5)
    assert load_checkpoint(folder).identity != first
