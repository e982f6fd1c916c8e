"""A decoder's configuration from GGUF metadata; what these leave to llama.cpp's code is stated here."""

from collections.abc import Collection, Mapping
from typing import Any

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.decoder_config import DecoderConfig, divided, unsupported
from engine.models.fields import Fields
from engine.models.rope_config import rope_from_gguf
from engine.ops.rope import RopeConfig

GGUF_ARCHITECTURES = ("gemma", "gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen3")

_PATTERNS = {"gemma2": 2, "gemma3": 6}
"""Every so many layers one sees everything; the others have the window."""
_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores are scaled by hidden_size / heads in place of head_dim."""


def decoder_from_gguf(
    values: Mapping[str, Any],
    tensor_names: Collection[str],
    source: str = "GGUF",
    rope_factors: Mapping[str, tuple[float, ...]] | None = None,
) -> DecoderConfig:
    """The file's tensors tell which biases there are and if the head is tied.

    `rope_factors` are the numbers of those tensors rope_freqs, rope_factors_short and
    rope_factors_long that it has. Raises UnsupportedModel or BadCheckpoint.
    """
    architecture = Fields(values, source).text("general.architecture")
    if architecture not in GGUF_ARCHITECTURES:
        raise unsupported(architecture, GGUF_ARCHITECTURES)
    prefix = f"{architecture}."
    fields = Fields({k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}, source)
    if fields.values.get("expert_count"):
        raise UnsupportedModel(f"{source}: mixtures of experts are not supported; use a dense model")
    heads = fields.integer("attention.head_count", low=1)
    hidden = fields.integer("embedding_length", low=1)
    layers = fields.integer("block_count", low=1, high=4096)
    context = fields.integer("context_length", low=1)
    head_dim = _head_dim(fields, hidden, heads)
    windows, gemma = _windows(fields, architecture, layers), architecture.startswith("gemma")
    return DecoderConfig(
        architecture=architecture,
        vocab_size=_vocabulary(fields, values),
        hidden_size=hidden,
        intermediate_size=fields.integer("feed_forward_length", low=1),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=fields.integer("attention.head_count_kv", heads, low=1),
        head_dim=head_dim,
        max_context=context,
        norm_eps=fields.number("attention.layer_norm_rms_epsilon", 1e-6),
        rope=rope_from_gguf(_with_theta(fields, architecture), head_dim, context, rope_factors or {}),
        windows=windows,
        local_rope=_local_rope(fields, head_dim) if architecture == "gemma3" else None,
        activation="gelu_pytorch_tanh" if gemma else "silu",
        qkv_bias="blk.0.attn_q.bias" in tensor_names or "blk.0.attn_qkv.bias" in tensor_names,
        output_bias="blk.0.attn_output.bias" in tensor_names,
        mlp_bias="blk.0.ffn_up.bias" in tensor_names,
        qk_norm="blk.0.attn_q_norm.weight" in tensor_names,
        post_norms=architecture in ("gemma2", "gemma3"),
        embed_scale=hidden**0.5 if gemma else 1.0,
        query_scale=(hidden / heads) ** -0.5 if layers == _LARGEST.get(architecture) else None,
        attn_softcap=_softcap(fields, "attn_logit_softcapping", architecture, 50.0),
        final_softcap=_softcap(fields, "final_logit_softcapping", architecture, 30.0),
        tied="output.weight" not in tensor_names,
    )


def _head_dim(fields: Fields, hidden: int, heads: int) -> int:
    if "attention.key_length" in fields:
        return fields.integer("attention.key_length", low=1)
    return divided(hidden, heads)


def _windows(fields: Fields, architecture: str, layers: int) -> tuple[int | None, ...]:
    window = fields.integer("attention.sliding_window", 4096 if architecture == "gemma2" else 0)
    if not window or architecture not in ("phi3", *_PATTERNS):
        return ()
    every = _PATTERNS.get(architecture, layers + 1)
    if "attention.sliding_window_pattern" in fields:
        every = fields.integer("attention.sliding_window_pattern", low=1)
    return tuple(window if (index + 1) % every else None for index in range(layers))


def _with_theta(fields: Fields, architecture: str) -> Fields:
    if architecture != "gemma3" or "rope.freq_base" in fields:
        return fields
    return Fields({**fields.values, "rope.freq_base": 1e6}, fields.source)


def _local_rope(fields: Fields, head_dim: int) -> RopeConfig:
    """Gemma 3's local layers are never scaled."""
    return RopeConfig(head_dim, fields.number("rope.freq_base_swa", 10000.0))


def _softcap(fields: Fields, key: str, architecture: str, default: float) -> float | None:
    if architecture == "gemma2":
        return fields.number(key, default)
    return fields.number(key) if architecture == "gemma3" and key in fields else None


def _vocabulary(fields: Fields, values: Mapping[str, Any]) -> int:
    if "vocab_size" in fields:
        return fields.integer("vocab_size", low=1)
    tokens = values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise BadCheckpoint(f"{fields.source}: neither vocab_size nor tokenizer.ggml.tokens is there")
    return len(tokens)
