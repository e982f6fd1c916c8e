"""ModernBERT (Warner et al., 2024): pre-norm, RoPE, a gated MLP, and mostly local attention."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.models.encoder_config import ModernBertConfig
from engine.ops.activations import ACTIVATIONS
from engine.ops.attention import attention
from engine.ops.linear import linear
from engine.ops.norms import layer_norm
from engine.ops.quant import take_rows
from engine.ops.rope import apply_rope, rope_tables

Params: TypeAlias = dict[str, Any]
_Tables: TypeAlias = tuple[jax.Array, jax.Array]


def hidden_states(
    params: Params, config: ModernBertConfig, input_ids: jax.Array, attention_mask: jax.Array
) -> jax.Array:
    """See `encoder.hidden_states`."""
    positions = jnp.arange(input_ids.shape[1])
    everywhere, local = (rope_tables(rope, positions[None]) for rope in (config.rope, config.local_rope))
    real = attention_mask[:, None, :].astype(bool)
    apart = jnp.abs(positions[:, None] - positions[None, :])
    x = _norm(params["embed"]["norm"], config, take_rows(params["embed"]["word"], input_ids))
    for layer, window in zip(params["layers"], config.windows, strict=True):
        mask = real if window is None else real & (apart <= window)
        x = x + _self_attention(layer, config, x, mask, everywhere if window is None else local)
        normed = _norm(layer["mlp_norm"], config, x)
        gate = ACTIVATIONS[config.activation](_linear(layer["gate"], normed))
        x = x + _linear(layer["down"], gate * _linear(layer["up"], normed))
    return _norm(params["norm"], config, x)


def _self_attention(
    layer: Params, config: ModernBertConfig, x: jax.Array, mask: jax.Array, tables: _Tables
) -> jax.Array:
    # The first layer has no norm: the embeddings have theirs.
    normed = _norm(layer["attn_norm"], config, x) if "attn_norm" in layer else x
    heads = (*x.shape[:2], config.num_heads, config.head_dim)
    q, k, v = (_linear(layer[name], normed).reshape(heads) for name in ("q", "k", "v"))
    out = attention(apply_rope(q, tables), apply_rope(k, tables), v, mask)
    return _linear(layer["o"], out.reshape(x.shape))


def _linear(module: Params, x: jax.Array) -> jax.Array:
    return linear(x, module["weight"], module.get("bias"))


def _norm(module: Params, config: ModernBertConfig, x: jax.Array) -> jax.Array:
    return layer_norm(x, module["weight"], module.get("bias"), config.norm_eps)


def parameter_shapes(config: ModernBertConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {"embed.word": (config.vocab_size, hidden)}
    norms = ["embed.norm", "norm"]
    matrices = [(name, (hidden, hidden), config.attention_bias) for name in "qkvo"]
    matrices += [(name, (inner, hidden), config.mlp_bias) for name in ("gate", "up")]
    matrices += [("down", (hidden, inner), config.mlp_bias)]
    for i in range(config.num_layers):
        norms += [f"layers.{i}.mlp_norm", *([f"layers.{i}.attn_norm"] if i else [])]
        for name, shape, bias in matrices:
            shapes[f"layers.{i}.{name}.weight"] = shape
            if bias:
                shapes[f"layers.{i}.{name}.bias"] = shape[:1]
    for norm in norms:
        shapes[f"{norm}.weight"] = (hidden,)
        if config.norm_bias:
            shapes[f"{norm}.bias"] = (hidden,)
    return shapes
