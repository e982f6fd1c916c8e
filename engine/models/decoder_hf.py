"""A decoder's configuration from a Hugging Face config.json, in the spelling of transformers 4 and 5."""

from collections.abc import Mapping
from typing import Any

from engine.errors import UnsupportedModel
from engine.models.decoder_config import DecoderConfig, divided, unsupported
from engine.models.fields import Fields
from engine.models.rope_config import GLOBAL, LOCAL, max_positions, rope_from_hf, ropes_by_layer_type
from engine.ops.rope import RopeConfig

HF_ARCHITECTURES = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")

GEMMAS = ("gemma", "gemma2", "gemma3_text")
"""They store norm weights as w and multiply by 1 + w, tie the head and scale embeddings."""
_HEAD_DIMS = {"qwen3": 128} | dict.fromkeys(GEMMAS, 256)
"""Where transformers does not divide hidden_size by the heads if head_dim is left out."""
_KV_HEADS = {"mistral": 8, "gemma": 16, "gemma2": 4, "gemma3_text": 4, "qwen2": 32, "qwen3": 32}
"""What transformers takes if num_key_value_heads is left out; the others have as many as there are heads."""
_GEMMA3_THETAS = {GLOBAL: ("rope_theta", 1e6), LOCAL: ("rope_local_base_freq", 1e4)}


def decoder_from_hf(values: Mapping[str, Any], source: str = "config.json") -> DecoderConfig:
    """Raises UnsupportedModel for what this decoder does not compute, BadCheckpoint for wrong values."""
    fields = Fields(values, source)
    architecture = fields.text("model_type")
    if architecture not in HF_ARCHITECTURES:
        raise unsupported(architecture, HF_ARCHITECTURES)
    _refuse_variants(fields, architecture)
    heads, hidden = fields.integer("num_attention_heads", low=1), fields.integer("hidden_size", low=1)
    layers = fields.integer("num_hidden_layers", low=1, high=4096)
    gemma, bias = architecture in GEMMAS, fields.flag("attention_bias", False)
    rope, local_rope = _ropes(fields, architecture, head_dim := _head_dim(fields, architecture))
    return DecoderConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size", low=1),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size", low=1),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=_kv_heads(fields, architecture, heads),
        head_dim=head_dim,
        max_context=_max_context(fields, rope),
        norm_eps=fields.number("rms_norm_eps", 1e-5 if architecture == "phi3" else 1e-6),
        rope=rope,
        windows=_windows(fields, architecture, layers),
        local_rope=local_rope,
        activation=_activation(fields, gemma),
        qkv_bias=bias or architecture == "qwen2",
        output_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
        qk_norm=architecture in ("qwen3", "gemma3_text"),
        post_norms=architecture in ("gemma2", "gemma3_text"),
        embed_scale=hidden**0.5 if gemma else 1.0,
        query_scale=_query_scale(fields, architecture),
        attn_softcap=_softcap(fields, "attn_logit_softcapping", architecture, 50.0),
        final_softcap=_softcap(fields, "final_logit_softcapping", architecture, 30.0),
        tied=fields.flag("tie_word_embeddings", gemma),
    )


def _refuse_variants(fields: Fields, architecture: str) -> None:
    """Refuses, by name, what a listed model_type may carry and this model does not compute."""
    source = fields.source
    if fields.values.get("quantization_config"):
        raise UnsupportedModel(f"{source}: quantization_config is not supported; use GGUF")
    if fields.values.get("use_bidirectional_attention") or fields.values.get("is_causal") is False:
        raise UnsupportedModel(f"{source}: bidirectional attention is not supported in a decoder")
    if fields.values.get("partial_rotary_factor") not in (None, 1, 1.0) and architecture != "phi3":
        raise UnsupportedModel(f"{source}: partial_rotary_factor below 1 is supported in phi3 only")
    if architecture in ("llama", "gemma") and LOCAL in str(fields.values.get("layer_types")):
        raise UnsupportedModel(f"{source}: sliding windows are not supported in {architecture}")


def _head_dim(fields: Fields, architecture: str) -> int:
    if "head_dim" in fields:
        return fields.integer("head_dim", low=1)
    if architecture in _HEAD_DIMS:
        return _HEAD_DIMS[architecture]
    return divided(fields.integer("hidden_size", low=1), fields.integer("num_attention_heads", low=1))


def _kv_heads(fields: Fields, architecture: str, heads: int) -> int:
    """Null means one for each head; a default that the heads are not a multiple of says nothing of them."""
    default = heads if "num_key_value_heads" in fields.values else _KV_HEADS.get(architecture, heads)
    return fields.integer("num_key_value_heads", default if heads % default == 0 else heads, low=1)


def _ropes(fields: Fields, architecture: str, head_dim: int) -> tuple[RopeConfig, RopeConfig | None]:
    """RoPE of the global layers, and of the local ones where that is another."""
    if architecture != "gemma3_text":
        return rope_from_hf(fields, head_dim), None
    found = ropes_by_layer_type(fields, head_dim, _GEMMA3_THETAS)
    return found[GLOBAL], found[LOCAL]


def _max_context(fields: Fields, rope: RopeConfig) -> int:
    """Dynamic NTK is for sequences beyond the trained length, by its factor."""
    longest = max_positions(fields)
    return int(longest * max(rope.factor, 1)) if rope.kind == "dynamic" else longest


def _activation(fields: Fields, gemma: bool) -> str:
    """Gemma's first configurations say `gelu` and mean the tanh form, which Google's code computes."""
    if gemma:
        named = fields.text("hidden_activation", fields.text("hidden_act", "gelu_pytorch_tanh"))
        if named in ("gelu", "gelu_pytorch_tanh"):
            return "gelu_pytorch_tanh"
        raise UnsupportedModel(
            f"{fields.source}: hidden_activation {named!r} is not supported; gelu_pytorch_tanh is"
        )
    named = fields.text("hidden_act", "silu")
    if named not in ("silu", "swish"):
        raise UnsupportedModel(
            f"{fields.source}: hidden_act {named!r} is not supported in this decoder; silu is"
        )
    return "silu"


def _windows(fields: Fields, architecture: str, layers: int) -> tuple[int | None, ...]:
    """The window of each layer; the defaults are those of transformers."""
    if architecture in ("llama", "gemma") or fields.values.get("sliding_window", 4096) is None:
        return ()
    if architecture == "phi3" and "sliding_window" not in fields:
        return ()
    if architecture in ("qwen2", "qwen3") and not fields.flag("use_sliding_window", False):
        return ()
    window = fields.integer("sliding_window", 4096, low=1)
    return tuple(window if local else None for local in _local_layers(fields, architecture, layers))


def _local_layers(fields: Fields, architecture: str, layers: int) -> list[bool]:
    """Which layers have the window: all in Mistral and Phi-3, else by layer_types or by the pattern."""
    if architecture in ("mistral", "phi3"):
        return [True] * layers
    types = fields.values.get("layer_types")
    if types is not None:
        if (
            not isinstance(types, list)
            or len(types) != layers
            or any(t not in (GLOBAL, LOCAL) for t in types)
        ):
            raise fields.bad("layer_types", f"must list {GLOBAL} or {LOCAL} for each of {layers} layers")
        return [kind == LOCAL for kind in types]
    if architecture in ("qwen2", "qwen3"):
        first = fields.integer("max_window_layers", 28)
        return [index >= first for index in range(layers)]
    every = 2 if architecture == "gemma2" else fields.integer("sliding_window_pattern", 6, low=1)
    return [(index + 1) % every != 0 for index in range(layers)]


def _query_scale(fields: Fields, architecture: str) -> float | None:
    if architecture not in ("gemma2", "gemma3_text"):
        return None
    return float(fields.number("query_pre_attn_scalar", 256.0) ** -0.5)


def _softcap(fields: Fields, key: str, architecture: str, default: float) -> float | None:
    """Gemma 2 caps unless the key is there and null; Gemma 3 only where it says so."""
    if architecture == "gemma2" and key not in fields.values:
        return default
    return fields.number(key) if architecture in GEMMAS and key in fields else None
