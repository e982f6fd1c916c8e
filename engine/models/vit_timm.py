"""A vision transformer's configuration from a timm checkpoint: its config.json and the shapes of its tensors.

timm's config.json names an architecture whose arguments stand in timm's own code. What the tensors show
(tokens, depth, norms, biases, layer scale, pooling) is read from them; the rest follows from the name.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.fields import Fields
from engine.models.vit_config import NormAt, VitConfig, VitPooling

ARCHITECTURES = ("vit_", "deit_", "deit3_")
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""Heads of the widths that do not have one for every 64."""
_HEADS_BY_NAME = (("vit_giantopt_", 16), ("vit_base_patch16_gap_", 16))
_GELU_TANH = ("vit_base_patch32_siglip_", "vit_so400m_patch16_siglip_", "vit_giantopt_patch16_siglip_")
_GELU_TANH_512 = ("vit_large_patch16_siglip_512", "vit_large_patch16_siglip_gap_512")
"""By the model functions of timm 1.0.31, all of whose plain ones these rules were compared with."""
_POOLS: dict[str, VitPooling] = {"token": "cls", "avg": "mean", "map": "map"}


class Shapes(Protocol):
    """Names and shapes of a checkpoint's tensors, axes of a batch taken off."""

    def names(self) -> Collection[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...


def vit_from_timm(values: Mapping[str, Any], tensors: Shapes, source: str = "config.json") -> VitConfig:
    """`tensors` before fused matrices are split. Raises UnsupportedModel or BadCheckpoint."""
    fields = Fields(values, source)
    name, arguments, there = fields.text("architecture"), fields.table("model_args"), set(tensors.names())
    if not name.startswith(ARCHITECTURES) or "_rpn_" in name:
        raise UnsupportedModel(
            f"{source}: timm's {name[:60]!r} is not supported; its plain {', '.join(ARCHITECTURES)}* are"
        )
    needed = {"patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"}
    if missing := sorted(needed - there):
        raise UnsupportedModel(f"{source}: timm's {name[:60]!r} without {missing[0]} is not supported")
    hidden, channels, tall, wide = tensors.shape("patch_embed.proj.weight")
    size = _image_size(fields, arguments, tensors, (tall, wide))
    patches = (size[0] // tall) * (size[1] // wide)
    registers = tensors.shape("reg_token")[0] if "reg_token" in there else 0
    inner, gated = tensors.shape("blocks.0.mlp.fc1.weight")[0], _gated(tensors)
    pooling, norm_at = _pooling(fields, there)
    return VitConfig(
        architecture="timm",
        image_size=size,
        patch_size=(tall, wide),
        channels=channels,
        hidden_size=hidden,
        intermediate_size=inner // 2 if gated else inner,
        num_layers=_depth(there),
        num_heads=arguments.integer("num_heads", _heads(name, hidden), low=1),
        norm_eps=1e-5 if "_clip_" in name else 1e-6,
        activation=_activation(name, arguments),
        class_token="cls_token" in there,
        distillation_token="dist_token" in there,
        registers=registers,
        position_prefix=tensors.shape("pos_embed")[0] - patches,
        antialias=True,
        pre_norm="norm_pre.weight" in there,
        patch_bias="patch_embed.proj.bias" in there,
        qkv_bias="blocks.0.attn.qkv.bias" in there,
        qk_norm="blocks.0.attn.q_norm.weight" in there,
        layer_scale="blocks.0.ls1.gamma" in there,
        gated=gated,
        pooling=pooling,
        norm_at=norm_at,
        labels=_labels(fields, tensors.shape("head.weight")[0]) if "head.weight" in there else (),
        distilled_head="head_dist.weight" in there,
    )


def _image_size(
    fields: Fields, arguments: Fields, tensors: Shapes, patch: tuple[int, int]
) -> tuple[int, int]:
    """As the arguments say, else as it was trained, else a square that the position table fits."""
    said = arguments.values.get("img_size")
    trained = fields.table("pretrained_cfg").values.get("input_size")
    if said is None and isinstance(trained, list | tuple) and len(trained) == 3:
        said = list(trained[1:])
    if said is None:
        side = math.isqrt(tensors.shape("pos_embed")[0])
        said = [side * patch[0], side * patch[1]]
    sides = [said, said] if isinstance(said, int) else said
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise arguments.bad("img_size", "must be one or two numbers of pixels")
    return sides[0], sides[1]


def _gated(tensors: Shapes) -> bool:
    """SwiGLU's first matrix holds gates and values, so it has twice the rows that its last has columns."""
    return tensors.shape("blocks.0.mlp.fc1.weight")[0] == 2 * tensors.shape("blocks.0.mlp.fc2.weight")[1]


def _depth(there: set[str]) -> int:
    numbers = {name.split(".")[1] for name in there if name.startswith("blocks.")}
    if sorted(numbers) != sorted(map(str, range(len(numbers)))):
        raise BadCheckpoint("a timm checkpoint whose blocks are not numbered from 0 without gaps")
    return len(numbers)


def _pooling(fields: Fields, there: set[str]) -> tuple[VitPooling, NormAt]:
    named = fields.text("global_pool", "token")
    if "attn_pool.latent" in there:
        named = "map"
    if named not in _POOLS:
        raise UnsupportedModel(
            f"{fields.source}: global_pool {named[:40]!r} is not one of {', '.join(_POOLS)}"
        )
    norm: NormAt = (
        "pooled" if "fc_norm.weight" in there else "tokens" if "norm.weight" in there else "nowhere"
    )
    return _POOLS[named], norm


def _heads(name: str, hidden: int) -> int:
    by_name = (heads for start, heads in _HEADS_BY_NAME if name.startswith(start))
    return next(by_name, _HEADS.get(hidden, max(hidden // 64, 1)))


def _activation(name: str, arguments: Fields) -> str:
    if "quickgelu" in name:
        return "quick_gelu"
    tanh = name.startswith((*_GELU_TANH, *_GELU_TANH_512))
    chosen = arguments.text("act_layer", "gelu_tanh" if tanh else "gelu")
    known = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
    if chosen not in known:
        raise UnsupportedModel(
            f"{arguments.source}: act_layer {chosen[:40]!r} is not one of {', '.join(known)}"
        )
    return known[chosen]


def _labels(fields: Fields, count: int) -> tuple[str, ...]:
    """`label_names` of the file where it has as many, else numbers."""
    names = fields.values.get("label_names")
    if isinstance(names, list) and len(names) == count:
        return tuple(map(str, names))
    return tuple(f"LABEL_{number}" for number in range(count))
