"""A vision transformer's configuration from the shapes of an exported checkpoint's tensors alone."""

import math
from typing import Any

from engine.errors import UnsupportedModel
from engine.models.vit_config import VitConfig
from engine.models.vit_hf import vit_from_hf
from engine.models.vit_timm import Shapes

_HEAD_DIM = 64
"""Of every published ViT, DeiT and DINOv2 in Hugging Face's layout: graphs do not say it."""
_PATCH = "embeddings.patch_embeddings.projection.weight"
_POSITION = "embeddings.position_embeddings"


def vit_from_onnx(tensors: Shapes, source: str) -> VitConfig:
    """A backbone of ViT or DINOv2, `tensors` without axes of a batch. Raises UnsupportedModel."""
    there = set(tensors.names())
    dino = "encoder.layer.0.layer_scale1.lambda1" in there
    first = "encoder.layer.0.mlp.fc1.weight" if dino else "encoder.layer.0.intermediate.dense.weight"
    if missing := sorted({_PATCH, _POSITION, first} - there):
        raise UnsupportedModel(f"{source}: is no ViT or DINOv2 of Hugging Face: it lacks {missing[0]}")
    hidden, channels, height, width = tensors.shape(_PATCH)
    side = math.isqrt(tensors.shape(_POSITION)[0] - 1)
    norm = "encoder.layer.{}.norm1.weight" if dino else "encoder.layer.{}.layernorm_before.weight"
    inner = tensors.shape(first)[0]
    values: dict[str, Any] = {
        "model_type": "dinov2" if dino else "vit",
        "architectures": ["Dinov2Model" if dino else "ViTModel"],
        "hidden_size": hidden,
        "num_channels": channels,
        "patch_size": [height, width],
        "image_size": [side * height, side * width],
        "num_hidden_layers": sum(norm.format(i) in there for i in range(len(there))),
        "num_attention_heads": max(hidden // _HEAD_DIM, 1),
        "intermediate_size": inner,
        "mlp_ratio": inner / hidden,
    }
    return vit_from_hf(values, source)
