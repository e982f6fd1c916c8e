"""CLIP's and SigLIP's configuration from a Hugging Face config.json."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.models.clip_config import ClipConfig, TextTowerConfig
from engine.models.decoder_config import unsupported
from engine.models.fields import Fields, activation
from engine.models.vit_hf import image_tower

HF_ARCHITECTURES = ("clip", "siglip")
_FIRST_EOS = 2
"""What OpenAI's first configurations say, wrongly; their texts end where the largest id is."""


def clip_from_hf(values: Mapping[str, Any], source: str = "config.json") -> ClipConfig:
    """Raises UnsupportedModel or BadCheckpoint."""
    fields = Fields(values, source)
    architecture = fields.text("model_type")
    if architecture not in HF_ARCHITECTURES:
        raise unsupported(architecture, HF_ARCHITECTURES)
    siglip = architecture == "siglip"
    images, texts = fields.table("vision_config"), fields.table("text_config")
    vision = image_tower(images, f"{architecture}_vision_model", projects=False)
    if siglip:
        return ClipConfig(architecture, vision, _siglip_text(texts))
    projection = fields.integer("projection_dim", 512, low=1)
    return ClipConfig(architecture, replace(vision, projection=projection), _clip_text(texts, projection))


def _clip_text(fields: Fields, projection: int) -> TextTowerConfig:
    eos = fields.integer("eos_token_id", 49407)
    return TextTowerConfig(
        hidden_size=fields.integer("hidden_size", 512, low=1),
        intermediate_size=fields.integer("intermediate_size", 2048, low=1),
        num_layers=fields.integer("num_hidden_layers", 12, low=1, high=4096),
        num_heads=fields.integer("num_attention_heads", 8, low=1),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        activation=activation(fields, "hidden_act", "quick_gelu"),
        vocab_size=fields.integer("vocab_size", 49408, low=1),
        max_positions=fields.integer("max_position_embeddings", 77, low=2),
        projection=projection,
        causal=True,
        eos_id=None if eos == _FIRST_EOS else eos,
        pad_id=0 if eos == _FIRST_EOS else eos,
    )


def _siglip_text(fields: Fields) -> TextTowerConfig:
    hidden = fields.integer("hidden_size", 768, low=1)
    return TextTowerConfig(
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size", 3072, low=1),
        num_layers=fields.integer("num_hidden_layers", 12, low=1, high=4096),
        num_heads=fields.integer("num_attention_heads", 12, low=1),
        norm_eps=fields.number("layer_norm_eps", 1e-6),
        activation=activation(fields, "hidden_act", "gelu_pytorch_tanh"),
        vocab_size=fields.integer("vocab_size", 32000, low=1),
        max_positions=fields.integer("max_position_embeddings", 64, low=1),
        projection=fields.integer("projection_size", hidden, low=1),
        causal=False,
        eos_id=None,
        pad_id=fields.integer("pad_token_id", 1),
    )
