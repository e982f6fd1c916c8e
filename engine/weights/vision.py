"""How image models lie in files: configurations, each source as `build` wants it, with its key map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from engine.errors import UnsupportedModel
from engine.models import clip, vit
from engine.models.clip_config import ClipConfig
from engine.models.clip_hf import HF_ARCHITECTURES as CLIP_ARCHITECTURES
from engine.models.clip_hf import clip_from_hf
from engine.models.vit_config import VitConfig
from engine.models.vit_hf import HF_ARCHITECTURES as VIT_ARCHITECTURES
from engine.models.vit_hf import vit_from_hf
from engine.models.vit_timm import vit_from_timm
from engine.vision.preprocess import Preprocessing, preprocessing_from_hf, preprocessing_from_timm
from engine.weights.files import read_object_if_there
from engine.weights.names import Rename
from engine.weights.source import TensorSource
from engine.weights.views import Parts, Renamed, SplitSource, WithoutBatch
from engine.weights.vision_names import PREFIXES, clip_hf, vit_hf, vit_timm

ARCHITECTURES = (*VIT_ARCHITECTURES, *CLIP_ARCHITECTURES)
VisionConfig: TypeAlias = VitConfig | ClipConfig

_RANKS = {
    "cls_token": 1,
    "distillation_token": 1,
    "dist_token": 1,
    "mask_token": 1,
    "probe": 1,
    "latent": 1,
    "register_tokens": 2,
    "reg_token": 2,
    "position_embeddings": 2,
    "pos_embed": 2,
    "logit_scale": 0,
    "logit_bias": 0,
}
"""Axes of the tensors that PyTorch keeps with axes of a batch before them."""
_UNREAD = ("pooler.", "embeddings.mask_token")
IGNORED = ("decoder.", *(f"{at}{name}" for at in ("", *PREFIXES) for name in _UNREAD))
"""Poolers that take no part in embeddings, what images were masked with in training."""


PREPROCESSOR = "preprocessor_config.json"


def is_vision(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is of an image model: of Hugging Face's, or of timm, whose say `architecture`."""
    return values.get("model_type") in ARCHITECTURES or is_timm(values)


def is_timm(values: Mapping[str, Any]) -> bool:
    return "model_type" not in values and isinstance(values.get("architecture"), str)


def vision_config(folder: Path, values: Mapping[str, Any], tensors: TensorSource | None) -> VisionConfig:
    """`tensors` of a `plain` checkpoint; None of a packed one. Raises UnsupportedModel or BadCheckpoint."""
    source = str(folder / "config.json")
    if is_timm(values):
        if tensors is None:
            raise UnsupportedModel(f"{folder}: packed models of timm are not supported")
        return vit_from_timm(values, tensors, source)
    if values["model_type"] in CLIP_ARCHITECTURES:
        return clip_from_hf(values, source)
    return vit_from_hf(values, source)


def vision_preprocessing(folder: Path, values: Mapping[str, Any], config: VisionConfig) -> Preprocessing:
    """What is done to images before the model. Raises UnsupportedModel or BadCheckpoint."""
    tower = config.vision if isinstance(config, ClipConfig) else config
    if is_timm(values):
        return preprocessing_from_timm(values, tower, str(folder / "config.json"))
    settings = read_object_if_there(folder / PREPROCESSOR)
    return preprocessing_from_hf(settings, tower, str(folder / PREPROCESSOR))


def vision_shapes(config: VisionConfig) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape of every parameter."""
    if isinstance(config, ClipConfig):
        return clip.parameter_shapes(config)
    return vit.parameter_shapes(config)


def vision_source(config: VisionConfig, source: TensorSource) -> tuple[TensorSource, Rename]:
    """A `plain` checkpoint of any image model with its key map."""
    if isinstance(config, ClipConfig):
        source = SplitSource(source, _hf_parts(config.vision))
        return source, clip_hf(config.architecture, source.names())
    return vit_source(config, source)


def vit_source(config: VitConfig, source: TensorSource) -> tuple[TensorSource, Rename]:
    """A `plain` checkpoint of one image tower or classifier, in Hugging Face's layout or in timm's."""
    timm = "patch_embed.proj.weight" in source.names()
    source = SplitSource(source, _timm_parts(config) if timm else _hf_parts(config))
    names = source.names()
    return source, vit_timm(names) if timm else vit_hf(config.architecture, names, gated=config.gated)


def plain(source: TensorSource) -> TensorSource:
    """`source` without PyTorch's axes of a batch, each tensor called by module and leaf."""
    return WithoutBatch(Renamed(source, _dotted), _RANKS)


def _dotted(name: str) -> str:
    """`in_proj_weight` of PyTorch's own attention has no module of its own."""
    return name.replace("in_proj_weight", "in_proj.weight").replace("in_proj_bias", "in_proj.bias")


def _hf_parts(config: VitConfig) -> Parts:
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        "in_proj": [(name, hidden) for name in "qkv"],
        "weights_in": [("gate", inner), ("up", inner)],
    }


def _timm_parts(config: VitConfig) -> Parts:
    hidden, inner = config.hidden_size, config.intermediate_size
    parts: dict[str, list[tuple[str, int]]] = {
        "qkv": [(name, hidden) for name in "qkv"],
        "kv": [(name, hidden) for name in "kv"],
    }
    if config.gated:
        parts["fc1"] = [("gate", inner), ("fc1", inner)]
    return parts
