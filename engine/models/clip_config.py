"""Configuration of models that put images and texts into one space: CLIP and SigLIP."""

from dataclasses import dataclass

from engine.errors import BadCheckpoint
from engine.models.prenorm import BlockConfig
from engine.models.vit_config import VitConfig


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(BlockConfig):
    """A pre-norm transformer over the tokens of a text.

    Attributes:
        max_positions: most tokens of a text.
        projection: numbers of the embedding.
        causal: tokens see those before them, and the text is pooled at its first `eos_id` (CLIP); else all
            see all, padding too, and it is pooled at its last position (SigLIP).
        eos_id: None where it is the largest id of the text, as in OpenAI's first configurations.
        pad_id: what texts are filled up with.
    """

    vocab_size: int
    max_positions: int
    projection: int
    causal: bool
    eos_id: int | None
    pad_id: int


@dataclass(frozen=True)
class ClipConfig:
    """Radford et al., 2021 ("clip"): a softmax over texts. Zhai et al., 2023 ("siglip"): a sigmoid each."""

    architecture: str
    vision: VitConfig
    text: TextTowerConfig

    def __post_init__(self) -> None:
        if self.vision.features != self.text.projection:
            raise BadCheckpoint(
                f"images are embedded in {self.vision.features} numbers, texts in {self.text.projection}"
            )

    @property
    def sigmoid(self) -> bool:
        """Whether each text is judged by itself."""
        return self.architecture == "siglip"

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size
