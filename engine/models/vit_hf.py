"""A vision transformer's configuration from a Hugging Face config.json."""

from collections.abc import Mapping
from typing import Any

from engine.errors import UnsupportedModel
from engine.models.decoder_config import unsupported
from engine.models.fields import Fields, activation
from engine.models.vit_config import VitConfig

VIT_LIKE = ("vit", "deit", "dinov2", "dinov2_with_registers")
TOWERS = ("clip_vision_model", "siglip_vision_model")
HF_ARCHITECTURES = (*VIT_LIKE, *TOWERS)

_CLASSIFIERS = ("ForImageClassification", "ForImageClassificationWithTeacher")
_BACKBONES = ("Model", "ForMaskedImageModeling", "Backbone", "WithProjection")
_DINOS = ("dinov2", "dinov2_with_registers")


def vit_from_hf(values: Mapping[str, Any], source: str = "config.json") -> VitConfig:
    """Raises UnsupportedModel or BadCheckpoint."""
    fields = Fields(values, source)
    architecture = fields.text("model_type")
    if architecture not in HF_ARCHITECTURES:
        raise unsupported(architecture, HF_ARCHITECTURES)
    head = _head(fields)
    classifies = _classifies(head)
    if architecture in TOWERS:
        return image_tower(fields, architecture, projects=head.endswith("WithProjection"))
    hidden, labels = fields.integer("hidden_size", 768, low=1), _labels(fields) if classifies else ()
    dino = architecture in _DINOS
    gated = dino and fields.flag("use_swiglu_ffn", False)
    distilled = architecture == "deit"
    return VitConfig(
        architecture=architecture,
        image_size=_size(fields, "image_size", 224),
        patch_size=_size(fields, "patch_size", 14 if architecture == "dinov2" else 16),
        channels=fields.integer("num_channels", 3, low=1, high=64),
        hidden_size=hidden,
        intermediate_size=_dino_inner(fields, hidden, gated) if dino else _inner(fields, 3072),
        num_layers=fields.integer("num_hidden_layers", 12, low=1, high=4096),
        num_heads=fields.integer("num_attention_heads", 12, low=1),
        norm_eps=fields.number("layer_norm_eps", 1e-6 if dino else 1e-12),
        activation=activation(fields, "hidden_act", "gelu"),
        distillation_token=distilled,
        position_prefix=2 if distilled else 1,
        registers=fields.integer("num_register_tokens", 4) if architecture == _DINOS[1] else 0,
        antialias=architecture == _DINOS[1],
        qkv_bias=fields.flag("qkv_bias", True),
        layer_scale=dino,
        gated=gated,
        pooling="cls_mean" if dino and labels else "cls",
        labels=labels,
        distilled_head=head.endswith("WithTeacher"),
    )


def image_tower(fields: Fields, architecture: str, *, projects: bool) -> VitConfig:
    """The image tower of CLIP or SigLIP; `projects`: with CLIP's last matrix."""
    siglip = architecture.startswith("siglip")
    if siglip and not fields.flag("vision_use_head", True):
        raise UnsupportedModel(f"{fields.source}: a SigLIP tower without its pooling head is not supported")
    return VitConfig(
        architecture=architecture,
        image_size=_size(fields, "image_size", 224),
        patch_size=_size(fields, "patch_size", 16 if siglip else 32),
        channels=fields.integer("num_channels", 3, low=1, high=64),
        hidden_size=fields.integer("hidden_size", 768, low=1),
        intermediate_size=_inner(fields, 3072),
        num_layers=fields.integer("num_hidden_layers", 12, low=1, high=4096),
        num_heads=fields.integer("num_attention_heads", 12, low=1),
        norm_eps=fields.number("layer_norm_eps", 1e-6 if siglip else 1e-5),
        activation=activation(fields, "hidden_act", "gelu_pytorch_tanh" if siglip else "quick_gelu"),
        class_token=not siglip,
        position_prefix=0 if siglip else 1,
        pre_norm=not siglip,
        patch_bias=siglip,
        pooling="map" if siglip else "cls",
        # CLIP norms the class token only, after pooling.
        norm_at="tokens" if siglip else "pooled",
        projection=fields.integer("projection_dim", 512, low=1) if projects else 0,
    )


def _head(fields: Fields) -> str:
    """The class the checkpoint was saved from; empty where the file does not say."""
    names = fields.values.get("architectures")
    return str(names[0])[:80] if isinstance(names, list) and names else ""


def _labels(fields: Fields) -> tuple[str, ...]:
    """The names of `id2label` in the order of their numbers, which must be 0 to n - 1."""
    listed = fields.values.get("id2label")
    if not isinstance(listed, Mapping):
        return tuple(f"LABEL_{n}" for n in range(fields.integer("num_labels", 2, low=1, high=1 << 20)))
    try:
        named = {int(number): str(label) for number, label in listed.items()}
    except (TypeError, ValueError):
        raise fields.bad("id2label", "must give labels by number") from None
    if sorted(named) != list(range(len(named))) or not named:
        raise fields.bad("id2label", "must number its labels from 0 without gaps")
    return tuple(named[number] for number in range(len(named)))


def _size(fields: Fields, key: str, default: int) -> tuple[int, int]:
    """(height, width) from one number for both, or from two."""
    value = fields.values.get(key)
    if isinstance(value, list | tuple):
        if len(value) != 2 or not all(isinstance(n, int) and 1 <= n <= 1 << 16 for n in value):
            raise fields.bad(key, "must be one or two numbers of pixels")
        return value[0], value[1]
    side = fields.integer(key, default, low=1, high=1 << 16)
    return side, side


def _classifies(head: str) -> bool:
    if head.endswith(_CLASSIFIERS):
        return True
    if head and not head.endswith(_BACKBONES):
        raise UnsupportedModel(f"{head} is not supported; classifiers and models that embed are")
    return False


def _inner(fields: Fields, default: int) -> int:
    return fields.integer("intermediate_size", default, low=1)


def _dino_inner(fields: Fields, hidden: int, gated: bool) -> int:
    """DINOv2's SwiGLU keeps two thirds of the MLP's size, rounded up to a multiple of 8."""
    inner = int(hidden * fields.number("mlp_ratio", 4.0))
    return (int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner
