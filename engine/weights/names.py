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


def decoder_hf(present: Collection[str], *, post_norms: bool = False) -> Rename:
    """Names in a Hugging Face decoder; `model.` is left off where the checkpoint does (base models).

    With norms after the branches too, as in Gemma 2, `post_attention_layernorm` is one of those.
    """
    bare = "embed_tokens.weight" in present
    rename = _renamer({**_DECODER_HF, **(_POST_NORMS_HF if post_norms else {})}, "model.layers")
    return (lambda name: rename(name).removeprefix("model.")) if bare else rename


def decoder_gguf() -> Rename:
    return _renamer(_DECODER_GGUF, "blk")


def encoder_hf(present: Collection[str]) -> Rename:
    """Names in a Hugging Face BERT, after `bert.` where the checkpoint has it."""
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in present else ""
    rename = _renamer(_ENCODER_HF, "encoder.layer")
    return lambda name: prefix + rename(name)


def _renamer(table: dict[str, str], layers: str) -> Rename:
    """Maps "q.weight" of a layer by its module "q"; names without a module are entries themselves."""

    def rename(name: str) -> str:
        if not name.startswith("layers."):
            return table[name]
        _, index, module, *leaf = name.split(".")
        return ".".join((layers, index, table[module], *leaf))

    return rename


_IGNORED_ENDS = ("rotary_emb.inv_freq", "position_ids", ".attn.bias", ".attn.masked_bias")
_IGNORED_STARTS = ("pooler.", "bert.pooler.", "cls.", "rope_freqs.", "rope_factors_")


def ignorable(name: str, *, tied: bool) -> bool:
    """Tensors a checkpoint may carry that take no part: buffers, the BERT pooler and heads, a tied head."""
    if tied and name == "lm_head.weight":
        return True
    return name.endswith(_IGNORED_ENDS) or name.startswith(_IGNORED_STARTS)
