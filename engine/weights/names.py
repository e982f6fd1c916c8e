"""Key maps: the dotted parameter names of `engine.models` to the tensor names of checkpoints."""

from collections.abc import Callable, Collection
from typing import TypeAlias

Rename: TypeAlias = Callable[[str], str]

_DECODER_HF = {
    "embed": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_POST_NORMS_HF = {
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "attn_post_norm": "post_attention_layernorm.weight",
    "mlp_post_norm": "post_feedforward_layernorm.weight",
}
_DECODER_GGUF = {
    "embed": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "attn_norm": "attn_norm.weight",
    "mlp_norm": "ffn_norm.weight",
    "attn_post_norm": "post_attention_norm.weight",
    "mlp_post_norm": "post_ffw_norm.weight",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_ENCODER_HF = {
    "embed.word": "embeddings.word_embeddings.weight",
    "embed.position": "embeddings.position_embeddings.weight",
    "embed.type": "embeddings.token_type_embeddings.weight",
    "embed.norm.weight": "embeddings.LayerNorm.weight",
    "embed.norm.bias": "embeddings.LayerNorm.bias",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_MPNET_HF = {
    **_ENCODER_HF,
    "relative": "encoder.relative_attention_bias.weight",
    "q": "attention.attn.q",
    "k": "attention.attn.k",
    "v": "attention.attn.v",
    "o": "attention.attn.o",
    "attn_norm": "attention.LayerNorm",
}
_MODERNBERT_HF = {
    "embed.word": "embeddings.tok_embeddings.weight",
    "embed.norm.weight": "embeddings.norm.weight",
    "embed.norm.bias": "embeddings.norm.bias",
    "norm.weight": "final_norm.weight",
    "norm.bias": "final_norm.bias",
    "q": "attn.q",
    "k": "attn.k",
    "v": "attn.v",
    "o": "attn.Wo",
    "attn_norm": "attn_norm",
    "mlp_norm": "mlp_norm",
    "gate": "mlp.gate",
    "up": "mlp.up",
    "down": "mlp.Wo",
}
_HEADS_HF = {
    "bert": {"head.dense": "bert.pooler.dense", "head.out": "classifier"},
    "modernbert": {"head.dense": "head.dense", "head.norm": "head.norm", "head.out": "classifier"},
}
_ROBERTA_HEAD = {"head.dense": "classifier.dense", "head.out": "classifier.out_proj"}
PROJECTION = "linear.weight"
"""ColBERT's layer after the encoder."""
_PREFIXES = ("bert.", "roberta.", "mpnet.", "model.")


def decoder_hf(present: Collection[str], *, post_norms: bool = False) -> Rename:
    """Names in a Hugging Face decoder; `model.` is left off where the checkpoint does (base models).

    With norms after the branches too, as in Gemma 2, `post_attention_layernorm` is one of those.
    """
    bare = "embed_tokens.weight" in present
    rename = _renamer({**_DECODER_HF, **(_POST_NORMS_HF if post_norms else {})}, "model.layers")
    return (lambda name: rename(name).removeprefix("model.")) if bare else rename


def decoder_gguf() -> Rename:
    return _renamer(_DECODER_GGUF, "blk")


def encoder_hf(architecture: str, present: Collection[str]) -> Rename:
    """Names in a Hugging Face encoder, after `bert.` or the like where the checkpoint has it."""
    tables = {"mpnet": (_MPNET_HF, "encoder.layer"), "modernbert": (_MODERNBERT_HF, "layers")}
    table, layers = tables.get(architecture, (_ENCODER_HF, "encoder.layer"))
    inner, head = _renamer(table, layers), _HEADS_HF.get(architecture, _ROBERTA_HEAD)
    word = table["embed.word"]
    prefix = next((prefix for prefix in _PREFIXES if prefix + word in present), "")

    def rename(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if name == "projection":
            return PROJECTION
        return f"{head[module]}.{leaf}" if module in head else prefix + inner(name)

    return rename


def _renamer(table: dict[str, str], layers: str) -> Rename:
    """Maps "q.weight" of a layer by its module "q"; names without a module are entries themselves."""

    def rename(name: str) -> str:
        if not name.startswith("layers."):
            return table[name]
        _, index, module, *leaf = name.split(".")
        return ".".join((layers, index, table[module], *leaf))

    return rename


_IGNORED_ENDS = ("rotary_emb.inv_freq", "position_ids", ".attn.bias", ".attn.masked_bias")
_IGNORED_STARTS = ("rope_freqs.", "rope_factors_")
ENCODER_HEADS = ("cls.", "lm_head.", "head.", "decoder.", *(f"{p}pooler." for p in ("", *_PREFIXES)))
"""Where encoders keep their poolers and the heads they were trained with."""


def ignorable(name: str, extra: tuple[str, ...]) -> bool:
    """Tensors a checkpoint may carry that take no part: buffers, and what begins as one of `extra`."""
    return name.endswith(_IGNORED_ENDS) or name.startswith((*_IGNORED_STARTS, *extra))
