"""Configuration of the BERT encoder and of the pooling that sentence-transformers puts on top."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.decoder_config import unsupported
from engine.models.fields import Fields
from engine.ops.activations import ACTIVATIONS

HF_ARCHITECTURES = ("bert",)
Pooling: TypeAlias = Literal["mean", "cls"]


@dataclass(frozen=True)
class EncoderConfig:
    """A post-norm transformer encoder with learnt absolute positions.

    Attributes:
        max_positions: rows of the position table: the longest sequence the weights can take.
        max_seq_length: where texts are cut, special tokens included; at most max_positions.
        pooling: how states become one vector: mean over the mask, or the first token's.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_positions: int
    type_vocab_size: int
    norm_eps: float
    activation: str
    pooling: Pooling = "mean"
    max_seq_length: int = 512

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def from_hf(
        cls,
        values: Mapping[str, Any],
        source: str = "config.json",
        *,
        pooling: Pooling = "mean",
        max_seq_length: int | None = None,
    ) -> "EncoderConfig":
        """Reads a Hugging Face config.json. Raises UnsupportedModel or BadCheckpoint."""
        fields = Fields(values, source)
        architecture = fields.text("model_type")
        if architecture not in HF_ARCHITECTURES:
            raise unsupported(architecture, HF_ARCHITECTURES)
        _refuse_variants(fields)
        hidden, heads = fields.integer("hidden_size", low=1), fields.integer("num_attention_heads", low=1)
        if hidden % heads:
            raise BadCheckpoint(f"{source}: hidden_size {hidden} is not a multiple of {heads} heads")
        positions = fields.integer("max_position_embeddings", 512, low=1)
        return cls(
            architecture=architecture,
            vocab_size=fields.integer("vocab_size", low=1),
            hidden_size=hidden,
            intermediate_size=fields.integer("intermediate_size", low=1),
            num_layers=fields.integer("num_hidden_layers", low=1, high=4096),
            num_heads=heads,
            max_positions=positions,
            type_vocab_size=fields.integer("type_vocab_size", 2, low=1),
            norm_eps=fields.number("layer_norm_eps", 1e-12),
            activation=fields.text("hidden_act", "gelu"),
            pooling=pooling,
            max_seq_length=min(max_seq_length or positions, positions),
        )


def _refuse_variants(fields: Fields) -> None:
    """Refuses, by name, what a BERT configuration may ask for and this model does not compute."""
    kind = fields.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UnsupportedModel(f"{fields.source}: positions of type {kind!r} are not supported; absolute are")
    if fields.flag("is_decoder", False):
        raise UnsupportedModel(f"{fields.source}: a BERT decoder is not supported; only encoders are")
    activation = fields.text("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        names = ", ".join(sorted(ACTIVATIONS))
        raise UnsupportedModel(
            f"{fields.source}: hidden_act {activation!r} is not supported; supported: {names}"
        )
