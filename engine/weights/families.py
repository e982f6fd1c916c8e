"""How the families lay their tensors out in files: each source as `build` wants it, with its key map."""

from engine.models.decoder_config import DecoderConfig
from engine.models.decoder_hf import GEMMAS
from engine.models.encoder_config import CausalConfig, EncoderConfig
from engine.weights import names
from engine.weights.names import Rename
from engine.weights.source import TensorSource
from engine.weights.views import OffsetNorms, Parts, SplitSource


def decoder_hf(config: DecoderConfig, source: TensorSource) -> tuple[TensorSource, Rename]:
    """A Hugging Face decoder; `model.` is left off where the checkpoint does (base models)."""
    if config.architecture == "phi3":
        source = SplitSource(source, _fused(config, "{}_proj", "qkv_proj", "gate_up_proj"))
    if config.architecture in GEMMAS:
        source = OffsetNorms(source)
    return source, names.decoder_hf(source.names(), post_norms=config.post_norms)


def decoder_gguf(config: DecoderConfig, source: TensorSource) -> tuple[TensorSource, Rename]:
    """A GGUF decoder. llama.cpp's converter has added 1 to Gemma's norms already."""
    if config.architecture == "phi3":
        fused = _fused(config, "attn_{}", "attn_qkv", "ffn_up")
        source = SplitSource(source, {**fused, "ffn_up": [(f"ffn_{n}", r) for n, r in _gate_up(config)]})
    return source, names.decoder_gguf()


def encoder_hf(config: EncoderConfig, source: TensorSource) -> tuple[TensorSource, Rename]:
    """A Hugging Face encoder, or a decoder that embeds."""
    if isinstance(config, CausalConfig):
        return decoder_hf(config.decoder, source)
    if config.architecture == "modernbert":
        hidden, inner = config.hidden_size, config.intermediate_size
        parts = {"Wqkv": [(name, hidden) for name in "qkv"], "Wi": [("gate", inner), ("up", inner)]}
        source = SplitSource(source, parts)
    return source, names.encoder_hf(config.architecture, source.names())


def _fused(config: DecoderConfig, part: str, qkv: str, gate_up: str) -> Parts:
    """Phi-3's two fused matrices; `part` names the modules in them."""
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return {
        qkv: [(part.format(name), rows) for name, rows in zip("qkv", (query, key, key), strict=True)],
        gate_up: [(part.format(name), rows) for name, rows in _gate_up(config)],
    }


def _gate_up(config: DecoderConfig) -> list[tuple[str, int]]:
    return [("gate", config.intermediate_size), ("up", config.intermediate_size)]
