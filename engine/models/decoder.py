"""The decoder as pure functions over a tree of parameters: `run`, `logits` and `forward`.

Knows nothing of tokenizers, sampling or where keys and values are kept: `run` hands each layer's
q, k and v to the caller's `attend`, so a cache of any layout is the caller's.

Parameters, as `weights` builds them; each weight is float32 (out, in) or a QTensor:

    embed (vocab, hidden)   norm (hidden,)   head (vocab, hidden) unless tied
    layers[i]: attn_norm (hidden,)  mlp_norm (hidden,)  q_norm, k_norm (head_dim,) with qk_norm
               attn_post_norm, mlp_post_norm (hidden,) with post_norms
               q k v o gate up down: {weight, bias where the configuration has one}
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.models.decoder_config import DecoderConfig
from engine.ops.activations import ACTIVATIONS, softcap
from engine.ops.attention import attention, causal_mask
from engine.ops.linear import linear
from engine.ops.norms import rms_norm
from engine.ops.quant import take_rows
from engine.ops.rope import apply_rope, rope_tables

__all__ = [
    "Attend",
    "DecoderConfig",
    "Params",
    "forward",
    "hidden_states",
    "logits",
    "parameter_shapes",
    "run",
]

Params: TypeAlias = dict[str, Any]
Attend: TypeAlias = Callable[[int, jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
"""(layer, q [B,T,H,D], k [B,T,KV,D], v [B,T,KV,D], state) -> (out [B,T,H,D], state); q and k are rotated.

What a layer may see is `config.window(layer)`, scores are q.k * D ** -0.5 (q comes scaled where a family
wants another factor) and go through `config.attn_softcap` where there is one.
"""


def run(
    params: Params, config: DecoderConfig, tokens: jax.Array, positions: jax.Array, attend: Attend, state: Any
) -> tuple[jax.Array, Any]:
    """Hidden states after the last norm, [B,T,hidden], and the state `attend` leaves behind.

    Args:
        config: at the length of the longest sequence: see `DecoderConfig.at_length`.
        tokens: Int [B,T], each in [0, vocab_size); out-of-range ids are clamped, not reported.
        positions: Int [B,T], the place of each token in its own sequence, from 0.
        attend: called once per layer, in order, while tracing.
        state: any pytree, for `attend` alone.
    """
    everywhere = rope_tables(config.rope, positions)
    local = rope_tables(config.local_rope, positions) if config.local_rope else everywhere
    x = take_rows(params["embed"], tokens)
    if config.embed_scale != 1.0:
        x = x * config.embed_scale
    for index, layer in enumerate(params["layers"]):
        tables = everywhere if config.window(index) is None else local
        q, k, v = _projections(layer, config, x, tables)
        out, state = attend(index, q, k, v, state)
        x = _mlp(layer, config, _attended(layer, config, x, out))
    return rms_norm(x, params["norm"], config.norm_eps), state


def logits(params: Params, config: DecoderConfig, hidden: jax.Array) -> jax.Array:
    """Unnormalised log-probabilities of the next token: [..., hidden] -> float32 [..., vocab]."""
    found = linear(hidden, params["embed"] if config.tied else params["head"])
    return found if config.final_softcap is None else softcap(found, config.final_softcap)


def forward(params: Params, config: DecoderConfig, tokens: jax.Array) -> jax.Array:
    """Logits [B,T,vocab] of whole sequences, Int [B,T], without a cache. Works under jit, grad and vmap."""
    return logits(params, config, hidden_states(params, config, tokens))


def hidden_states(params: Params, config: DecoderConfig, tokens: jax.Array) -> jax.Array:
    """Hidden states after the last norm, [B,T,hidden], of whole sequences without a cache."""
    length = tokens.shape[1]
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    masks = {window: causal_mask(positions[:1], length, window) for window in {None, *config.windows}}

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, state: None) -> tuple[jax.Array, None]:
        return attention(q, k, v, masks[config.window(layer)], softcap=config.attn_softcap), state

    found, _ = run(params, config.at_length(length), tokens, positions, attend, None)
    return found


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
    if config.query_scale is not None:
        q = q * (config.query_scale * config.head_dim**0.5)
    return apply_rope(q, tables), apply_rope(k, tables), v


@partial(jax.jit, static_argnums=1)
def _attended(layer: Params, config: DecoderConfig, x: jax.Array, out: jax.Array) -> jax.Array:
    """x plus its attention branch, whose heads' results are `out` [B,T,H,D]."""
    found = _linear(layer["o"], out.reshape(*x.shape[:2], -1))
    return x + (rms_norm(found, layer["attn_post_norm"], config.norm_eps) if config.post_norms else found)


@partial(jax.jit, static_argnums=1)
def _mlp(layer: Params, config: DecoderConfig, x: jax.Array) -> jax.Array:
    """x plus its feed-forward branch."""
    normed = rms_norm(x, layer["mlp_norm"], config.norm_eps)
    gate = ACTIVATIONS[config.activation](_linear(layer["gate"], normed))
    found = _linear(layer["down"], gate * _linear(layer["up"], normed))
    return x + (rms_norm(found, layer["mlp_post_norm"], config.norm_eps) if config.post_norms else found)


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
        if config.post_norms:
            shapes |= {f"layers.{i}.attn_post_norm": (hidden,), f"layers.{i}.mlp_post_norm": (hidden,)}
        if config.qk_norm:
            shapes |= {f"layers.{i}.q_norm": (dim,), f"layers.{i}.k_norm": (dim,)}
        for name, rows, columns, bias in matrices:
            shapes[f"layers.{i}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"layers.{i}.{name}.bias"] = (rows,)
    return shapes
