"""BERT, RoBERTa, XLM-RoBERTa and MPNet: post-norm layers over learnt absolute positions."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.models.encoder_config import BertConfig
from engine.ops.activations import ACTIVATIONS
from engine.ops.attention import attention
from engine.ops.linear import linear
from engine.ops.norms import layer_norm
from engine.ops.quant import take_rows

Params: TypeAlias = dict[str, Any]

_FARTHEST = 128
"""Distance from which MPNet's biases no longer differ."""


def hidden_states(
    params: Params,
    config: BertConfig,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    token_types: jax.Array | None = None,
) -> jax.Array:
    """See `encoder.hidden_states`. Padding must come after the text: positions are counted from the left."""
    tables, length = params["embed"], input_ids.shape[1]
    x = take_rows(tables["word"], input_ids)
    x = x + take_rows(tables["position"], config.position_offset + jnp.arange(length))
    if config.type_vocab_size:
        x = x + (tables["type"][0] if token_types is None else take_rows(tables["type"], token_types))
    x = _norm(tables["norm"], config, x)
    mask = attention_mask[:, None, :].astype(bool)
    bias = _distance_bias(params["relative"], length) if config.relative_buckets else None
    for layer in params["layers"]:
        x = _norm(layer["attn_norm"], config, x + _self_attention(layer, config, x, mask, bias))
        inner = ACTIVATIONS[config.activation](_linear(layer["up"], x))
        x = _norm(layer["mlp_norm"], config, x + _linear(layer["down"], inner))
    return x


def _self_attention(
    layer: Params, config: BertConfig, x: jax.Array, mask: jax.Array, bias: jax.Array | None
) -> jax.Array:
    heads = (*x.shape[:2], config.num_heads, config.head_dim)
    q, k, v = (_linear(layer[name], x).reshape(heads) for name in ("q", "k", "v"))
    return _linear(layer["o"], attention(q, k, v, mask, bias=bias).reshape(x.shape))


def _distance_bias(table: jax.Array, length: int) -> jax.Array:
    """(buckets, heads) -> (heads, length, length): what MPNet adds to the scores."""
    return table[distance_buckets(length, table.shape[0])].transpose(2, 0, 1)


def distance_buckets(length: int, buckets: int) -> NDArray[np.int32]:
    """The bucket of key j as query i sees it, (length, length), of T5 (Raffel et al., 2020).

    Keys after the query have the upper half. In each half near distances have a bucket each, far ones
    share buckets that widen by logarithm. In float32, as transformers does, so that ties fall alike.
    """
    half, near = buckets // 2, buckets // 4
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    apart = np.abs(distance)
    growth = np.log(np.maximum(apart, 1).astype(np.float32) / np.float32(near))
    far = near + (growth / np.log(_FARTHEST / near).astype(np.float32) * (half - near)).astype(np.int32)
    found: NDArray[np.int64] = np.where(apart < near, apart, np.minimum(far, half - 1)) + np.where(
        distance > 0, half, 0
    )
    return found.astype(np.int32)


def _linear(module: Params, x: jax.Array) -> jax.Array:
    return linear(x, module["weight"], module["bias"])


def _norm(module: Params, config: BertConfig, x: jax.Array) -> jax.Array:
    return layer_norm(x, module["weight"], module["bias"], config.norm_eps)


def parameter_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embed.word": (config.vocab_size, hidden),
        "embed.position": (config.position_offset + config.max_positions, hidden),
        "embed.norm.weight": (hidden,),
        "embed.norm.bias": (hidden,),
    }
    if config.type_vocab_size:
        shapes["embed.type"] = (config.type_vocab_size, hidden)
    if config.relative_buckets:
        shapes["relative"] = (config.relative_buckets, config.num_heads)
    matrices = dict.fromkeys("qkvo", (hidden, hidden)) | {"up": (inner, hidden), "down": (hidden, inner)}
    for i in range(config.num_layers):
        for name, shape in matrices.items():
            shapes[f"layers.{i}.{name}.weight"] = shape
            shapes[f"layers.{i}.{name}.bias"] = shape[:1]
        for norm in ("attn_norm", "mlp_norm"):
            shapes |= {f"layers.{i}.{norm}.weight": (hidden,), f"layers.{i}.{norm}.bias": (hidden,)}
    return shapes
