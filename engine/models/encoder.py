"""The encoders as pure functions over a tree of parameters: `hidden_states`, `embed` and `scores`.

Parameters, as `weights` builds them; each matrix is float32 (out, in) or a QTensor:

    BERT-like   embed: word (vocab, hidden)  position (offset + max_positions, hidden)  norm
                       type (type_vocab, hidden) unless there are none
                relative (buckets, heads) in MPNet
                layers[i]: q k v o up down: {weight, bias};  attn_norm, mlp_norm: {weight, bias}
    ModernBERT  embed: word, norm   norm
                layers[i]: q k v o gate up down;  attn_norm (not in the first), mlp_norm
    decoders    see `decoder`, without its head
    both        head: dense, norm in ModernBERT, out; with a head alone
                projection (projection, hidden); in a ColBERT model alone

The pooler that BERT checkpoints carry takes no part in embeddings; a reranker's is the head's dense layer.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.models import bert, decoder, modernbert
from engine.models.encoder_config import (
    BertConfig,
    CausalConfig,
    EncoderConfig,
    HeadConfig,
    ModernBertConfig,
    Pooling,
)
from engine.ops.activations import ACTIVATIONS
from engine.ops.distance import unit
from engine.ops.linear import linear
from engine.ops.norms import layer_norm

__all__ = [
    "EncoderConfig",
    "Params",
    "embed",
    "hidden_states",
    "parameter_shapes",
    "pool",
    "scores",
    "token_vectors",
]

Params: TypeAlias = dict[str, Any]


def hidden_states(
    params: Params,
    config: EncoderConfig,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    token_types: jax.Array | None = None,
) -> jax.Array:
    """Last hidden states, float32 [B,T,hidden].

    Args:
        input_ids: Int [B,T], each in [0, vocab_size); T at most max_positions.
        attention_mask: Int or bool [B,T]; 0 marks padding, which no token attends to; it comes last.
        token_types: Int [B,T], which text of a pair each token is of; zeros when left out, and
            meaningless to models without a table for them.
    """
    if isinstance(config, ModernBertConfig):
        return modernbert.hidden_states(params, config, input_ids, attention_mask)
    if isinstance(config, BertConfig):
        return bert.hidden_states(params, config, input_ids, attention_mask, token_types)
    if isinstance(config, CausalConfig):
        # No token sees what comes after it, so padding needs no mask.
        return decoder.hidden_states(params, config.decoder, input_ids)
    raise TypeError(f"no encoder for {type(config).__name__}")


def embed(
    params: Params, config: EncoderConfig, input_ids: jax.Array, attention_mask: jax.Array
) -> jax.Array:
    """Unit vectors, float32 [B,hidden], pooled as the configuration says."""
    states = hidden_states(params, config, input_ids, attention_mask)
    return unit(pool(config.pooling, states, attention_mask))


def pool(pooling: Pooling, states: jax.Array, attention_mask: jax.Array) -> jax.Array:
    """[B,T,hidden] -> [B,hidden]; a row that is all padding gives zeros under mean pooling."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last = jnp.maximum(jnp.sum(attention_mask.astype(jnp.int32), axis=1) - 1, 0)
        return jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
    weights = attention_mask.astype(states.dtype)[..., None]
    return jnp.sum(states * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


def scores(
    params: Params,
    config: EncoderConfig,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    token_types: jax.Array | None = None,
) -> jax.Array:
    """The classification head's logits, float32 [B,labels]. ValueError for a model without a head."""
    if config.head is None:
        raise ValueError(f"{config.architecture} here has no classification head")
    states = hidden_states(params, config, input_ids, attention_mask, token_types)
    return _classified(params["head"], config.head, config, pool(config.head.pooling, states, attention_mask))


def token_vectors(
    params: Params, config: EncoderConfig, input_ids: jax.Array, attention_mask: jax.Array
) -> jax.Array:
    """Unit vectors of the tokens of a ColBERT model, float32 [B,T,projection]."""
    states = hidden_states(params, config, input_ids, attention_mask)
    return unit(linear(states, params["projection"]))


def _classified(head: Params, settings: HeadConfig, config: EncoderConfig, pooled: jax.Array) -> jax.Array:
    x = linear(pooled, head["dense"]["weight"], head["dense"].get("bias"))
    x = ACTIVATIONS[settings.activation](x)
    if settings.norm:
        x = layer_norm(x, head["norm"]["weight"], head["norm"].get("bias"), config.norm_eps)
    return linear(x, head["out"]["weight"], head["out"]["bias"])


def parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape of every parameter; matrices are (out, in)."""
    projection = {"projection": (config.projection, config.hidden_size)} if config.projection else {}
    if isinstance(config, ModernBertConfig):
        head = _head_shapes(config, norm_bias=config.norm_bias)
        return modernbert.parameter_shapes(config) | head | projection
    if isinstance(config, BertConfig):
        return bert.parameter_shapes(config) | _head_shapes(config) | projection
    if isinstance(config, CausalConfig):
        return decoder.parameter_shapes(config.decoder)
    raise TypeError(f"no encoder for {type(config).__name__}")


def _head_shapes(config: EncoderConfig, *, norm_bias: bool = True) -> dict[str, tuple[int, ...]]:
    head, hidden = config.head, config.hidden_size
    if head is None:
        return {}
    shapes: dict[str, tuple[int, ...]] = {
        "head.dense.weight": (hidden, hidden),
        "head.out.weight": (head.labels, hidden),
        "head.out.bias": (head.labels,),
    }
    if head.dense_bias:
        shapes["head.dense.bias"] = (hidden,)
    if head.norm:
        shapes |= {"head.norm.weight": (hidden,), **({"head.norm.bias": (hidden,)} if norm_bias else {})}
    return shapes
