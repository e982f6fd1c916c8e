"""Configuration of the vision transformers: ViT, DeiT, DINOv2, the image towers of CLIP and SigLIP."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.errors import BadCheckpoint
from engine.models.prenorm import BlockConfig

VitPooling: TypeAlias = Literal["cls", "mean", "cls_mean", "map"]
"""How states become one vector: the class token, the mean of the patches, both side by side, or attention
of a learnt probe (SigLIP)."""
NormAt: TypeAlias = Literal["tokens", "pooled", "nowhere"]
"""What the last norm is applied to."""


@dataclass(frozen=True, kw_only=True)
class VitConfig(BlockConfig):
    """A pre-norm transformer over the patches of an image (Dosovitskiy et al., 2020).

    Attributes:
        image_size, patch_size: (height, width) in pixels; the first is what the position table is for.
        channels: 3 of colours, 1 of grey.
        class_token, distillation_token, registers: tokens before the patches, in that order; DeiT's
            distillation token (Touvron et al., 2020) and registers (Darcet et al., 2023) included.
        position_prefix: rows of the position table that belong to those tokens; the others have none.
        antialias: whether the position table is interpolated with a wider filter where it shrinks.
        pre_norm: a norm before the first layer (CLIP).
        patch_bias: whether the embedding of patches has one.
        projection: numbers of the embedding after CLIP's last matrix; 0 has none.
        labels: names of the classes in order; empty without a classifier.
        distilled_head: a second classifier on the distillation token; both are averaged.
    """

    architecture: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    channels: int
    class_token: bool = True
    distillation_token: bool = False
    registers: int = 0
    position_prefix: int = 1
    antialias: bool = False
    pre_norm: bool = False
    patch_bias: bool = True
    pooling: VitPooling = "cls"
    norm_at: NormAt = "tokens"
    projection: int = 0
    labels: tuple[str, ...] = ()
    distilled_head: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(size < patch for size, patch in zip(self.image_size, self.patch_size, strict=True)):
            raise BadCheckpoint(f"image_size {self.image_size} is smaller than a patch {self.patch_size}")
        if self.pooling in ("cls", "cls_mean") and not self.class_token:
            raise BadCheckpoint("a model without a class token cannot be pooled by it")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the native size."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.class_token) + int(self.distillation_token) + self.registers

    @property
    def features(self) -> int:
        """Numbers of an embedding."""
        return self.projection or self.hidden_size * (2 if self.pooling == "cls_mean" else 1)
