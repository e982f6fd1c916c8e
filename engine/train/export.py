"""A trained vision transformer as a folder in Hugging Face's layout, which transformers and we read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine.models.vit_config import VitConfig
from engine.weights.safetensors import SINGLE
from engine.weights.tree import flatten
from engine.weights.vision_names import vit_hf

_BATCHED = {"embed.cls": 2, "embed.position": 1}
"""Axes of 1 that PyTorch keeps before them."""


def save_vit(
    folder: Path,
    params: dict[str, Any],
    config: VitConfig,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Writes model.safetensors (float16), config.json and preprocessor_config.json.

    `mean` and `std` are of pixels in 0..1, one for each channel. A plain ViT classifier only.
    """
    if config.architecture != "vit" or not config.labels:
        raise ValueError("only a classifier of the plain ViT architecture is written")
    rename = vit_hf("vit", {"vit.embeddings.patch_embeddings.projection.weight"})
    tensors = {}
    for name, leaf in flatten(params).items():
        array = np.asarray(leaf, np.float16)
        tensors[rename(name)] = array.reshape((1,) * _BATCHED.get(name, 0) + array.shape)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    _write(folder / "config.json", _settings(config))
    height, width = config.image_size
    _write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": height, "width": width},
            "resample": 2,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(mean),
            "image_std": list(std),
        },
    )


def _settings(config: VitConfig) -> dict[str, Any]:
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_act": config.activation,
        "hidden_size": config.hidden_size,
        "id2label": {str(number): label for number, label in enumerate(config.labels)},
        "image_size": list(config.image_size),
        "intermediate_size": config.intermediate_size,
        "label2id": {label: number for number, label in enumerate(config.labels)},
        "layer_norm_eps": config.norm_eps,
        "num_attention_heads": config.num_heads,
        "num_channels": config.channels,
        "num_hidden_layers": config.num_layers,
        "patch_size": list(config.patch_size),
        "qkv_bias": config.qkv_bias,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
