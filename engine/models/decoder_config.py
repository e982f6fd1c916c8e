"""Configuration of the decoder family: Llama, Mistral, Qwen2 and Qwen3, from config.json or GGUF."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.fields import Fields
from engine.models.rope_config import rope_from_gguf, rope_from_hf
from engine.ops.rope import RopeConfig

HF_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm transformer decoder with RMSNorm, RoPE, grouped-query attention and a SiLU-gated MLP.

    Attributes:
        max_context: longest sequence the positions were trained for, in tokens.
        qkv_bias, output_bias, mlp_bias: which projections add a bias.
        qk_norm: RMSNorm over each head of q and k before RoPE (Qwen3).
        tied: the output head is the embedding table.
        sliding_window: a token sees itself and this many less one before it (Mistral); None sees all.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    norm_eps: float
    rope: RopeConfig
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    sliding_window: int | None = None

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise BadCheckpoint(
                f"the configuration has {self.num_heads} attention heads, "
                f"not a multiple of its {self.num_kv_heads} key-value heads"
            )
        if self.head_dim % 2:
            raise BadCheckpoint(f"the configuration has head_dim {self.head_dim}; it must be even")

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], source: str = "config.json") -> "DecoderConfig":
        """Reads a Hugging Face config.json. Raises UnsupportedModel or BadCheckpoint."""
        fields = Fields(values, source)
        architecture = fields.text("model_type")
        if architecture not in HF_ARCHITECTURES:
            raise unsupported(architecture, HF_ARCHITECTURES)
        _refuse_variants(fields)
        heads, hidden = fields.integer("num_attention_heads", low=1), fields.integer("hidden_size", low=1)
        head_dim = fields.integer("head_dim", low=1) if "head_dim" in fields else _divided(hidden, heads)
        bias = fields.flag("attention_bias", False)
        return cls(
            architecture=architecture,
            vocab_size=fields.integer("vocab_size", low=1),
            hidden_size=hidden,
            intermediate_size=fields.integer("intermediate_size", low=1),
            num_layers=fields.integer("num_hidden_layers", low=1, high=4096),
            num_heads=heads,
            num_kv_heads=fields.integer("num_key_value_heads", heads, low=1),
            head_dim=head_dim,
            max_context=fields.integer("max_position_embeddings", 2048, low=1),
            norm_eps=fields.number("rms_norm_eps", 1e-6),
            rope=rope_from_hf(fields, head_dim),
            qkv_bias=bias or architecture == "qwen2",
            output_bias=bias,
            mlp_bias=fields.flag("mlp_bias", False),
            qk_norm=architecture == "qwen3",
            tied=fields.flag("tie_word_embeddings", False),
            sliding_window=_mistral_window(fields) if architecture == "mistral" else None,
        )

    @classmethod
    def from_gguf(
        cls,
        values: Mapping[str, Any],
        tensor_names: Collection[str],
        source: str = "GGUF",
        rope_factors: tuple[float, ...] = (),
    ) -> "DecoderConfig":
        """Reads GGUF metadata; the file's tensors tell which biases there are and if the head is tied."""
        architecture = Fields(values, source).text("general.architecture")
        if architecture not in GGUF_ARCHITECTURES:
            raise unsupported(architecture, GGUF_ARCHITECTURES)
        prefix = f"{architecture}."
        fields = Fields(
            {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}, source
        )
        if fields.values.get("expert_count"):
            raise UnsupportedModel(f"{source}: mixtures of experts are not supported; use a dense model")
        heads, hidden = (
            fields.integer("attention.head_count", low=1),
            fields.integer("embedding_length", low=1),
        )
        head_dim = (
            fields.integer("attention.key_length", low=1)
            if "attention.key_length" in fields
            else _divided(hidden, heads)
        )
        return cls(
            architecture=architecture,
            vocab_size=_gguf_vocabulary(fields, values),
            hidden_size=hidden,
            intermediate_size=fields.integer("feed_forward_length", low=1),
            num_layers=fields.integer("block_count", low=1, high=4096),
            num_heads=heads,
            num_kv_heads=fields.integer("attention.head_count_kv", heads, low=1),
            head_dim=head_dim,
            max_context=fields.integer("context_length", low=1),
            norm_eps=fields.number("attention.layer_norm_rms_epsilon", 1e-6),
            rope=rope_from_gguf(fields, head_dim, rope_factors),
            qkv_bias="blk.0.attn_q.bias" in tensor_names,
            output_bias="blk.0.attn_output.bias" in tensor_names,
            mlp_bias="blk.0.ffn_up.bias" in tensor_names,
            qk_norm="blk.0.attn_q_norm.weight" in tensor_names,
            tied="output.weight" not in tensor_names,
        )


def unsupported(architecture: str, supported: Collection[str]) -> UnsupportedModel:
    names = ", ".join(sorted(supported))
    return UnsupportedModel(
        f"the architecture {architecture[:60]!r} is not supported; supported are: {names}"
    )


def _refuse_variants(fields: Fields) -> None:
    """Refuses, by name, what a listed model_type may carry and this model does not compute."""
    source = fields.source
    if fields.values.get("quantization_config"):
        raise UnsupportedModel(f"{source}: quantization_config is not supported; use GGUF")
    activation = fields.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UnsupportedModel(f"{source}: hidden_act {activation!r} is not supported in a decoder; silu is")
    layers = str(fields.values.get("layer_types"))
    windowed = fields.flag("use_sliding_window", False) or "sliding_attention" in layers
    if windowed and fields.text("model_type") != "mistral":
        raise UnsupportedModel(f"{source}: sliding windows are supported in mistral only")


def _mistral_window(fields: Fields) -> int | None:
    """The window of every layer; transformers means 4096 where the configuration says nothing."""
    if fields.values.get("sliding_window", 4096) is None:
        return None
    return fields.integer("sliding_window", 4096, low=1)


def _divided(hidden: int, heads: int) -> int:
    if hidden % heads:
        raise BadCheckpoint(f"hidden_size {hidden} is not a multiple of the {heads} attention heads")
    return hidden // heads


def _gguf_vocabulary(fields: Fields, values: Mapping[str, Any]) -> int:
    if "vocab_size" in fields:
        return fields.integer("vocab_size", low=1)
    tokens = values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise BadCheckpoint(f"{fields.source}: neither vocab_size nor tokenizer.ggml.tokens is there")
    return len(tokens)
