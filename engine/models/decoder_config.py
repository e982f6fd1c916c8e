"""Configuration of the decoder: what differs between its families, whatever file it was read from."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.ops.rope import RopeConfig, for_length


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm transformer decoder with RMSNorm, RoPE, grouped-query attention and a gated MLP.

    Attributes:
        max_context: longest sequence the positions were made for, in tokens.
        windows: for each layer how many tokens a token sees, itself and those just before it; None
            sees all. Empty means None in every layer.
        local_rope: RoPE of the layers with a window; None where they share `rope` (Gemma 3 does not).
        activation: of the gate, a name in `ops.activations`.
        qkv_bias, output_bias, mlp_bias: which projections add a bias.
        qk_norm: RMSNorm over each head of q and k before RoPE (Qwen3, Gemma 3).
        post_norms: RMSNorm also on what attention and MLP give, before it is added (Gemma 2 and 3).
        embed_scale: embeddings are multiplied by it (Gemma).
        query_scale: what scores are multiplied by; None is head_dim ** -0.5.
        attn_softcap, final_softcap: scores or logits x become cap * tanh(x / cap) (Gemma 2).
        tied: the output head is the embedding table.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    norm_eps: float
    rope: RopeConfig
    windows: tuple[int | None, ...] = ()
    local_rope: RopeConfig | None = None
    activation: str = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    embed_scale: float = 1.0
    query_scale: float | None = None
    attn_softcap: float | None = None
    final_softcap: float | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise BadCheckpoint(
                f"the configuration has {self.num_heads} attention heads, "
                f"not a multiple of its {self.num_kv_heads} key-value heads"
            )
        if self.head_dim % 2:
            raise BadCheckpoint(f"the configuration has head_dim {self.head_dim}; it must be even")

    def window(self, layer: int) -> int | None:
        """How many tokens a token of this layer sees; None is all before it."""
        return self.windows[layer] if self.windows else None

    def at_length(self, length: int) -> "DecoderConfig":
        """The configuration for sequences of up to `length` tokens: LongRoPE and dynamic NTK differ by it.

        Whoever keeps keys in a cache must use one length for the whole life of a sequence.
        """
        local = self.local_rope and for_length(self.local_rope, length)
        return replace(self, rope=for_length(self.rope, length), local_rope=local)


def unsupported(architecture: str, supported: Collection[str]) -> UnsupportedModel:
    names = ", ".join(sorted(supported))
    return UnsupportedModel(
        f"the architecture {architecture[:60]!r} is not supported; supported are: {names}"
    )


def divided(hidden: int, heads: int) -> int:
    """hidden // heads, or BadCheckpoint where that leaves a rest."""
    if hidden % heads:
        raise BadCheckpoint(f"hidden_size {hidden} is not a multiple of the {heads} attention heads")
    return hidden // heads
