"""Configuration of the encoders: what all have, and what BERT's kin, ModernBERT and decoders add."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from engine.errors import BadCheckpoint
from engine.models.decoder_config import DecoderConfig
from engine.ops.rope import RopeConfig

Pooling: TypeAlias = Literal["mean", "cls", "last"]


@dataclass(frozen=True)
class HeadConfig:
    """A classification head on one pooled state: dense, activation, norm where there is one, out.

    Attributes:
        labels: numbers it gives; a reranker's is 1.
        activation: a name in `ops.activations`.
    """

    labels: int
    pooling: Pooling = "cls"
    activation: str = "tanh"
    dense_bias: bool = True
    norm: bool = False


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What every encoder has.

    Attributes:
        max_positions: the longest sequence the weights can take, in tokens.
        max_seq_length: where texts are cut, special tokens included; at most max_positions.
        pooling: how states become one vector: mean over the mask, the first or the last token's.
        head: None in an embedding model.
        projection: numbers of a token's vector in a ColBERT model; 0 in others.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_positions: int
    norm_eps: float
    activation: str
    pooling: Pooling = "mean"
    max_seq_length: int = 512
    head: HeadConfig | None = None
    projection: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise BadCheckpoint(f"hidden_size {self.hidden_size} is not a multiple of {self.num_heads} heads")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True, kw_only=True)
class BertConfig(EncoderConfig):
    """A post-norm encoder with learnt absolute positions: BERT, RoBERTa, XLM-RoBERTa, MPNet.

    Attributes:
        position_offset: row of the position table that belongs to the first token; RoBERTa and MPNet
            keep the rows before it for padding.
        type_vocab_size: rows of the token type table; 0 has none.
        relative_buckets: rows of the table of biases by distance that MPNet adds to scores; 0 has none.
    """

    position_offset: int = 0
    type_vocab_size: int = 2
    relative_buckets: int = 0


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig(EncoderConfig):
    """A pre-norm encoder with RoPE and a gated MLP, most of whose layers see only their neighbours.

    Attributes:
        windows: for each layer how far a token sees to either side; None sees everything.
        rope, local_rope: of the layers without and with a window.
    """

    windows: tuple[int | None, ...]
    rope: RopeConfig
    local_rope: RopeConfig
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class CausalConfig(EncoderConfig):
    """A decoder without its language head, whose last states are pooled: Qwen3-Embedding, E5-Mistral."""

    decoder: DecoderConfig

    def __post_init__(self) -> None:
        """Heads of a decoder need not divide its hidden size."""


def embedding_decoder(
    config: DecoderConfig, *, pooling: Pooling = "mean", max_seq_length: int | None = None
) -> CausalConfig:
    """The encoder that a decoder becomes when its folder says how its states are pooled."""
    longest = min(max_seq_length or config.max_context, config.max_context)
    return CausalConfig(
        architecture=config.architecture,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        max_positions=config.max_context,
        norm_eps=config.norm_eps,
        activation=config.activation,
        pooling=pooling,
        max_seq_length=longest,
        # Without the head the embedding table is all there is of the vocabulary.
        decoder=replace(config.at_length(longest), tied=True),
    )
