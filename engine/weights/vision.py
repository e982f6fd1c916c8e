"""How image models lie in files: configurations, each source as `build` wants it, with its key map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.models.vit_config import VitConfig
from engine.models.vit_hf import HF_ARCHITECTURES, vit_from_hf
from engine.models.vit_timm import vit_from_timm
from engine.vision.preprocess import Preprocessing, preprocessing_from_hf, preprocessing_from_timm
from engine.weights.files import read_object_if_there
from engine.weights.names import Rename
from engine.weights.source import TensorSource
from engine.weights.views import Parts, Renamed, SplitSource, WithoutBatch
from engine.weights.vision_names import PREFIXES, vit_hf, vit_timm

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
}
"""Axes of the tensors that PyTorch keeps with axes of a batch before them."""
_UNREAD = ("pooler.", "embeddings.mask_token")
IGNORED = ("decoder.", *(f"{at}{name}" for at in ("", *PREFIXES) for name in _UNREAD))
"""Poolers that take no part in embeddings, what images were masked with in training."""


PREPROCESSOR = "preprocessor_config.json"


def is_vision(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is of an image model: of Hugging Face's, or of timm, whose say `architecture`."""
    return values.get("model_type") in HF_ARCHITECTURES or is_timm(values)


def is_timm(values: Mapping[str, Any]) -> bool:
    return "model_type" not in values and isinstance(values.get("architecture"), str)


def vision_config(folder: Path, values: Mapping[str, Any], tensors: TensorSource) -> VitConfig:
    """`tensors` as they are in the files. Raises UnsupportedModel or BadCheckpoint."""
    source = str(folder / "config.json")
    if is_timm(values):
        return vit_from_timm(values, plain(tensors), source)
    return vit_from_hf(values, source)


def vision_preprocessing(folder: Path, values: Mapping[str, Any], config: VitConfig) -> Preprocessing:
    """What is done to images before the model. Raises UnsupportedModel or BadCheckpoint."""
    if is_timm(values):
        return preprocessing_from_timm(values, config, str(folder / "config.json"))
    settings = read_object_if_there(folder / PREPROCESSOR)
    return preprocessing_from_hf(settings, config, str(folder / PREPROCESSOR))


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
