"""The BERT encoder as pure functions over a tree of parameters: `hidden_states` and `embed`.

Parameters, as `weights` builds them; each matrix is float32 (out, in) or a QTensor:

    embed: word (vocab, hidden)  position (max_positions, hidden)  type (type_vocab, hidden)  norm
    layers[i]: q k v o up down: {weight, bias};  attn_norm, mlp_norm: {weight, bias}

The pooler that BERT checkpoints carry takes no part in embeddings and is not loaded.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.models.encoder_config import EncoderConfig
from engine.ops.activations import ACTIVATIONS
from engine.ops.attention import attention
from engine.ops.distance import unit
from engine.ops.linear import linear
from engine.ops.norms import layer_norm
from engine.ops.quant import take_rows

__all__ = ["EncoderConfig", "Params", "embed", "hidden_states", "parameter_shapes", "pool"]

Params: TypeAlias = dict[str, Any]


def hidden_states(
    params: Params, config: EncoderConfig, input_ids: jax.Array, attention_mask: jax.Array
) -> jax.Array:
    """Last hidden states, float32 [B,T,hidden].

    Args:
        input_ids: Int [B,T], each in [0, vocab_size); T at most max_positions.
        attention_mask: Int or bool [B,T]; 0 marks padding, which no token attends to.
    """
    tables = params["embed"]
    x = take_rows(tables["word"], input_ids)
    x = x + take_rows(tables["position"], jnp.arange(input_ids.shape[1])) + tables["type"][0]
    x = _norm(tables["norm"], config, x)
    mask = attention_mask[:, None, :].astype(bool)
    for layer in params["layers"]:
        x = _norm(layer["attn_norm"], config, x + _self_attention(layer, config, x, mask))
        inner = ACTIVATIONS[config.activation](_linear(layer["up"], x))
        x = _norm(layer["mlp_norm"], config, x + _linear(layer["down"], inner))
    return x


def embed(
    params: Params, config: EncoderConfig, input_ids: jax.Array, attention_mask: jax.Array
) -> jax.Array:
    """Unit vectors, float32 [B,hidden], pooled as the configuration says."""
    return unit(pool(config, hidden_states(params, config, input_ids, attention_mask), attention_mask))


def pool(config: EncoderConfig, states: jax.Array, attention_mask: jax.Array) -> jax.Array:
    """[B,T,hidden] -> [B,hidden]; a row that is all padding gives zeros under mean pooling."""
    if config.pooling == "cls":
        return states[:, 0]
    weights = attention_mask.astype(states.dtype)[..., None]
    return jnp.sum(states * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


def _self_attention(layer: Params, config: EncoderConfig, x: jax.Array, mask: jax.Array) -> jax.Array:
    heads = (*x.shape[:2], config.num_heads, config.head_dim)
    q, k, v = (_linear(layer[name], x).reshape(heads) for name in ("q", "k", "v"))
    return _linear(layer["o"], attention(q, k, v, mask).reshape(x.shape))


def _linear(module: Params, x: jax.Array) -> jax.Array:
    return linear(x, module["weight"], module["bias"])


def _norm(module: Params, config: EncoderConfig, x: jax.Array) -> jax.Array:
    return layer_norm(x, module["weight"], module["bias"], config.norm_eps)


def parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape of every parameter; matrices are (out, in)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embed.word": (config.vocab_size, hidden),
        "embed.position": (config.max_positions, hidden),
        "embed.type": (config.type_vocab_size, hidden),
        "embed.norm.weight": (hidden,),
        "embed.norm.bias": (hidden,),
    }
    matrices = dict.fromkeys("qkvo", (hidden, hidden)) | {"up": (inner, hidden), "down": (hidden, inner)}
    for i in range(config.num_layers):
        for name, shape in matrices.items():
            shapes[f"layers.{i}.{name}.weight"] = shape
            shapes[f"layers.{i}.{name}.bias"] = shape[:1]
        for norm in ("attn_norm", "mlp_norm"):
            shapes |= {f"layers.{i}.{norm}.weight": (hidden,), f"layers.{i}.{norm}.bias": (hidden,)}
    return shapes
