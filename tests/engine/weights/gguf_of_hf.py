"""Writes a Hugging Face checkpoint as GGUF the way llama.cpp's converter does: names, order, folded norms.

Names come from the `gguf` package's own map, the one the converter uses.
"""

import json
import math
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType, get_tensor_name_map
from safetensors.numpy import load_file

ARCHITECTURES = {
    "gemma": MODEL_ARCH.GEMMA,
    "gemma2": MODEL_ARCH.GEMMA2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "llama": MODEL_ARCH.LLAMA,
    "phi3": MODEL_ARCH.PHI3,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
}


def write_gguf(folder: Path, path: Path, *, tensors_per_file: int = 0) -> None:
    config = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURES[config["model_type"]]
    writer = GGUFWriter(path, architecture.name.lower(), split_max_tensors=tensors_per_file)
    _metadata(writer, config)
    tensors = _converted(config, load_file(folder / "model.safetensors"))
    names = get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, values in tensors.items():
        named = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert named is not None, name
        writer.add_tensor(named, np.ascontiguousarray(values))
    rope = _rope(config)
    for kind in ("long", "short"):
        if f"{kind}_factor" in rope:
            writer.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], np.float32))
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, _head_dim(config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _llama3_factors(rope: dict, dim: int) -> np.ndarray:
    """`LlamaModel.generate_extra_tensors` of llama.cpp's convert_hf_to_gguf.py."""
    low, high, context = (
        rope[key] for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    factors = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def _head_dim(config: dict) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _rope(config: dict) -> dict:
    """The settings of the global layers, in the spelling of transformers 4 or 5."""
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta")}
    return rope.get("full_attention", rope)


def _metadata(writer: GGUFWriter, config: dict) -> None:
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    rope = _rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if config["model_type"] == "phi3":
        writer.add_rope_dimension_count(int(_head_dim(config) * rope.get("partial_rotary_factor", 1)))
    if rope.get("rope_type") == "longrope":
        first = rope["original_max_position_embeddings"]
        stretch = max(config["max_position_embeddings"] / first, 1)
        writer.add_rope_scaling_orig_ctx_len(first)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(first)))
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if config["model_type"] in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
        if config["model_type"] == "gemma3_text":
            writer.add_sliding_window_pattern(config["layer_types"].index("full_attention") + 1)
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def _converted(config: dict, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight", None)
    for name, values in tensors.items():
        if config["model_type"] == "llama" and "q_proj" in name:
            tensors[name] = _interleaved(values, config["num_attention_heads"])
        if config["model_type"] == "llama" and "k_proj" in name:
            tensors[name] = _interleaved(values, config["num_key_value_heads"])
        if config["model_type"].startswith("gemma") and name.endswith("norm.weight"):
            tensors[name] = values + np.float32(1)
        if config["model_type"] == "gemma2" and "q_proj" in name:
            # GGUF has no place for a scale that is not head_dim's.
            tensors[name] = values * np.float32((config["query_pre_attn_scalar"] / _head_dim(config)) ** -0.5)
    return tensors


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
