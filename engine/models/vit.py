"""Vision transformers as pure functions over a tree of parameters: `hidden_states`, `features`, `logits`.

Parameters, as `weights` builds them; layers as in `prenorm`:

    embed: patch {weight (hidden, channels, patch height, patch width), bias}  position (rows, hidden)
           cls (hidden,)  distillation (hidden,)  registers (registers, hidden)
    pre_norm  norm
    layers[i]
    pool: probe (hidden,)  q k v o  norm  up down
    projection (projection, hidden)  head  distillation_head

What a configuration leaves out is not there.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from engine.models.prenorm import (
    Params,
    Shapes,
    attended,
    block_shapes,
    dense,
    dense_shapes,
    heads,
    mlp,
    norm,
    norm_shapes,
    run_layers,
)
from engine.models.vit_config import VitConfig
from engine.ops.activations import ACTIVATIONS
from engine.ops.attention import attention, attention_weights
from engine.ops.images import extract_patches, flatten_patches
from engine.ops.interpolate import resize_grid
from engine.ops.linear import linear

__all__ = [
    "Params",
    "attention_maps",
    "classified",
    "embed_patches",
    "encode",
    "features",
    "hidden_states",
    "logits",
    "parameter_shapes",
    "pooled",
]


def hidden_states(params: Params, config: VitConfig, pixels: jax.Array) -> jax.Array:
    """Last states, float32 [B,tokens,hidden], the `config.prefix` tokens before the patches row by row.

    Args:
        pixels: float32 [B,channels,height,width], normalised as the checkpoint wants, of any size: the
            position table is interpolated to others, and pixels that fill no patch are left out.
    """
    return encode(params, config, embed_patches(params, config, pixels))


def encode(params: Params, config: VitConfig, x: jax.Array) -> jax.Array:
    """The layers and the last norm over embedded tokens [B,tokens,hidden], which may be some of them."""
    x = run_layers(params, config, x)
    return norm(params["norm"], config, x) if config.norm_at == "tokens" else x


def features(params: Params, config: VitConfig, pixels: jax.Array) -> jax.Array:
    """One vector of an image, float32 [B,config.features], of no particular length."""
    return pooled(params, config, hidden_states(params, config, pixels))


def logits(params: Params, config: VitConfig, pixels: jax.Array) -> jax.Array:
    """float32 [B,labels]. ValueError for a model without a classifier."""
    if not config.labels:
        raise ValueError(f"{config.architecture} here has no classifier")
    return classified(params, config, hidden_states(params, config, pixels))


def classified(params: Params, config: VitConfig, states: jax.Array) -> jax.Array:
    """[B,tokens,hidden] -> logits [B,labels] of a model with a classifier."""
    found = dense(params["head"], pooled(params, config, states))
    if config.distilled_head:
        found = (found + dense(params["distillation_head"], states[:, 1])) / 2
    return found


def pooled(params: Params, config: VitConfig, states: jax.Array) -> jax.Array:
    """[B,tokens,hidden] -> [B,features]."""
    patches = states[:, config.prefix :]
    if config.pooling == "map":
        found = _probe(params["pool"], config, patches)
    elif config.pooling == "mean":
        found = jnp.mean(patches, axis=1)
    elif config.pooling == "cls_mean":
        found = jnp.concatenate([states[:, 0], jnp.mean(patches, axis=1)], axis=-1)
    else:
        found = states[:, 0]
    if config.norm_at == "pooled":
        found = norm(params["norm"], config, found)
    return linear(found, params["projection"]) if config.projection else found


def attention_maps(params: Params, config: VitConfig, pixels: jax.Array) -> jax.Array:
    """What each token looks at in each layer, float32 [layers,B,heads,tokens,tokens]; rows sum to 1."""
    x, maps = embed_patches(params, config, pixels), []
    for layer in params["layers"]:
        normed = norm(layer["attn_norm"], config, x)
        q, k, _ = heads(layer, config, normed)
        maps.append(attention_weights(q, k))
        x = x + attended(layer, config, normed)
        x = x + mlp(layer, config, norm(layer["mlp_norm"], config, x))
    return jnp.stack(maps)


def embed_patches(params: Params, config: VitConfig, pixels: jax.Array) -> jax.Array:
    """[B,channels,height,width] -> [B,tokens,hidden], positions added: what the first layer reads."""
    table, patches = params["embed"], extract_patches(pixels, config.patch_size)
    batch, grid = pixels.shape[0], (patches.shape[1], patches.shape[2])
    flat = flatten_patches(patches)
    weight = table["patch"]["weight"]
    x = linear(flat, weight.reshape(weight.shape[0], -1), table["patch"].get("bias"))
    prefix = jnp.concatenate([*_prefix(table, config), jnp.zeros((0, config.hidden_size), x.dtype)])
    rows = config.position_prefix
    prefix = prefix.at[:rows].add(table["position"][:rows])
    x = x + _grid_positions(table["position"][rows:], config, grid)
    x = jnp.concatenate([jnp.broadcast_to(prefix, (batch, *prefix.shape)), x], axis=1)
    return norm(params["pre_norm"], config, x) if config.pre_norm else x


def _prefix(table: Params, config: VitConfig) -> Iterator[jax.Array]:
    if config.class_token:
        yield table["cls"][None]
    if config.distillation_token:
        yield table["distillation"][None]
    if config.registers:
        yield table["registers"]


def _grid_positions(table: jax.Array, config: VitConfig, grid: tuple[int, int]) -> jax.Array:
    if grid == config.grid:
        return table
    apart = table.reshape(*config.grid, config.hidden_size)
    return resize_grid(apart, grid, antialias=config.antialias).reshape(-1, config.hidden_size)


def _probe(pool: Params, config: VitConfig, patches: jax.Array) -> jax.Array:
    """Attention pooling (Zhai et al., 2022): a learnt query over the patches, then an MLP."""
    batch, apart = patches.shape[0], (config.num_heads, config.head_dim)
    q = jnp.broadcast_to(dense(pool["q"], pool["probe"][None]), (batch, 1, config.hidden_size))
    k, v = (dense(pool[name], patches).reshape(batch, -1, *apart) for name in ("k", "v"))
    x = dense(pool["o"], attention(q.reshape(batch, 1, *apart), k, v).reshape(batch, -1))
    inner = ACTIVATIONS[config.activation](dense(pool["up"], norm(pool["norm"], config, x)))
    return x + dense(pool["down"], inner)


def parameter_shapes(config: VitConfig) -> Shapes:
    """Dotted name -> shape of every parameter; matrices are (out, in)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = _embed_shapes(config)
    if config.pre_norm:
        shapes |= norm_shapes("pre_norm", hidden)
    shapes |= block_shapes(config)
    if config.norm_at != "nowhere":
        shapes |= norm_shapes("norm", hidden)
    if config.pooling == "map":
        shapes["pool.probe"] = (hidden,)
        for name in "qkvo":
            shapes |= dense_shapes(f"pool.{name}", hidden, hidden)
        shapes |= norm_shapes("pool.norm", hidden)
        shapes |= dense_shapes("pool.up", inner, hidden) | dense_shapes("pool.down", hidden, inner)
    if config.projection:
        shapes["projection"] = (config.projection, hidden)
    if config.labels:
        shapes |= dense_shapes("head", len(config.labels), config.features)
    if config.distilled_head:
        shapes |= dense_shapes("distillation_head", len(config.labels), hidden)
    return shapes


def _embed_shapes(config: VitConfig) -> Shapes:
    hidden = config.hidden_size
    shapes: Shapes = {"embed.patch.weight": (hidden, config.channels, *config.patch_size)}
    if config.patch_bias:
        shapes["embed.patch.bias"] = (hidden,)
    if config.class_token:
        shapes["embed.cls"] = (hidden,)
    if config.distillation_token:
        shapes["embed.distillation"] = (hidden,)
    if config.registers:
        shapes["embed.registers"] = (config.registers, hidden)
    shapes["embed.position"] = (config.position_prefix + config.grid[0] * config.grid[1], hidden)
    return shapes
