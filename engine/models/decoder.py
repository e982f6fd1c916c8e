"""The decoder as pure functions over a tree of parameters: `run`, `logits` and `forward`.

Knows nothing of tokenizers, sampling or where keys and values are kept: `run` hands each layer's
q, k and v to the caller's `attend`, so a cache of any layout is the caller's.

Parameters, as `weights` builds them; each weight is float32 (out, in) or a QTensor:

    embed (vocab, hidden)   norm (hidden,)   head (vocab, hidden) unless tied
    layers[i]: attn_norm (hidden,)  mlp_norm (hidden,)  q_norm, k_norm (head_dim,) with qk_norm
               q k v o gate up down: {weight, bias where the configuration has one}
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.models.decoder_config import DecoderConfig
from engine.ops.activations import silu
from engine.ops.attention import attention, causal_mask
from engine.ops.linear import linear
from engine.ops.norms import rms_norm
from engine.ops.quant import take_rows
from engine.ops.rope import apply_rope, rope_tables

__all__ = ["Attend", "DecoderConfig", "Params", "forward", "logits", "parameter_shapes", "run"]

Params: TypeAlias = dict[str, Any]
Attend: TypeAlias = Callable[[int, jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
"""(layer, q [B,T,H,D], k [B,T,KV,D], v [B,T,KV,D], state) -> (out [B,T,H,D], state); q and k are rotated."""


def run(
    params: Params, config: DecoderConfig, tokens: jax.Array, positions: jax.Array, attend: Attend, state: Any
) -> tuple[jax.Array, Any]:
    """Hidden states after the last norm, [B,T,hidden], and the state `attend` leaves behind.

    Args:
        tokens: Int [B,T], each in [0, vocab_size); out-of-range ids are clamped, not reported.
        positions: Int [B,T], the place of each token in its own sequence, from 0.
        attend: called once per layer, in order, while tracing.
        state: any pytree, for `attend` alone.
    """
    tables = rope_tables(config.rope, positions)
    x = take_rows(params["embed"], tokens)
    for index, layer in enumerate(params["layers"]):
        q, k, v = _projections(layer, config, x, tables)
        out, state = attend(index, q, k, v, state)
        x = _mlp(layer, config, x + _linear(layer["o"], out.reshape(*x.shape[:2], -1)))
    return rms_norm(x, params["norm"], config.norm_eps), state


def logits(params: Params, config: DecoderConfig, hidden: jax.Array) -> jax.Array:
    """Unnormalised log-probabilities of the next token: [..., hidden] -> float32 [..., vocab]."""
    return linear(hidden, params["embed"] if config.tied else params["head"])


def forward(params: Params, config: DecoderConfig, tokens: jax.Array) -> jax.Array:
    """Logits [B,T,vocab] of whole sequences, Int [B,T], without a cache. Works under jit, grad and vmap."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    mask = causal_mask(positions[:1], tokens.shape[1], config.sliding_window)

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, state: None) -> tuple[jax.Array, None]:
        return attention(q, k, v, mask), state

    hidden, _ = run(params, config, tokens, positions, attend, None)
    return logits(params, config, hidden)


# Traced once for all layers: half the time of lowering an unrolled decode step.
@partial(jax.jit, static_argnums=1)
def _projections(
    layer: Params, config: DecoderConfig, x: jax.Array, tables: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q [B,T,H,D] and k [B,T,KV,D] of the normed x, with RoPE applied, and v [B,T,KV,D]."""
    batch, length, _ = x.shape
    x = rms_norm(x, layer["attn_norm"], config.norm_eps)
    q = _linear(layer["q"], x).reshape(batch, length, config.num_heads, config.head_dim)
    k = _linear(layer["k"], x).reshape(batch, length, config.num_kv_heads, config.head_dim)
    v = _linear(layer["v"], x).reshape(batch, length, config.num_kv_heads, config.head_dim)
    if config.qk_norm:
        q = rms_norm(q, layer["q_norm"], config.norm_eps)
        k = rms_norm(k, layer["k_norm"], config.norm_eps)
    return apply_rope(q, tables), apply_rope(k, tables), v


@partial(jax.jit, static_argnums=1)
def _mlp(layer: Params, config: DecoderConfig, x: jax.Array) -> jax.Array:
    """x plus its feed-forward branch."""
    normed = rms_norm(x, layer["mlp_norm"], config.norm_eps)
    return x + _linear(layer["down"], silu(_linear(layer["gate"], normed)) * _linear(layer["up"], normed))


def _linear(module: Params, x: jax.Array) -> jax.Array:
    return linear(x, module["weight"], module.get("bias"))


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape of every parameter; matrices are (out, in)."""
    hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_heads * dim, config.num_kv_heads * dim
    shapes: dict[str, tuple[int, ...]] = {"embed": (config.vocab_size, hidden), "norm": (hidden,)}
    if not config.tied:
        shapes["head"] = (config.vocab_size, hidden)
    matrices = (
        ("q", q, hidden, config.qkv_bias),
        ("k", kv, hidden, config.qkv_bias),
        ("v", kv, hidden, config.qkv_bias),
        ("o", hidden, q, config.output_bias),
        ("gate", inner, hidden, config.mlp_bias),
        ("up", inner, hidden, config.mlp_bias),
        ("down", hidden, inner, config.mlp_bias),
    )
    for i in range(config.num_layers):
        shapes |= {f"layers.{i}.attn_norm": (hidden,), f"layers.{i}.mlp_norm": (hidden,)}
        if config.qk_norm:
            shapes |= {f"layers.{i}.q_norm": (dim,), f"layers.{i}.k_norm": (dim,)}
        for name, rows, columns, bias in matrices:
            shapes[f"layers.{i}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"layers.{i}.{name}.bias"] = (rows,)
    return shapes
