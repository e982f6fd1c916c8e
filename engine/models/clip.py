"""CLIP and SigLIP as pure functions: images and texts in one space, and how well they fit.

Parameters, as `weights` builds them:

    vision  as in `vit`
    text    embed: token (vocab, hidden)  position (max_positions, hidden)
            layers[i], as in `prenorm`   norm
            projection (projection, hidden) of CLIP, head {weight, bias} of SigLIP
    logit_scale ()   logit_bias () of SigLIP
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from engine.models import vit
from engine.models.clip_config import ClipConfig, TextTowerConfig
from engine.models.prenorm import Shapes, block_shapes, dense, dense_shapes, norm, norm_shapes, run_layers
from engine.ops.attention import causal_mask
from engine.ops.distance import unit
from engine.ops.linear import linear

Params: TypeAlias = dict[str, Any]


def image_features(params: Params, config: ClipConfig, pixels: jax.Array) -> jax.Array:
    """[B,channels,height,width] -> [B,projection], of no particular length."""
    return vit.features(params["vision"], config.vision, pixels)


def text_features(params: Params, config: ClipConfig, input_ids: jax.Array) -> jax.Array:
    """int [B,tokens] -> [B,projection], of no particular length.

    Each text ends with its end token and is filled up with `pad_id`; SigLIP's to `max_positions`, always.
    """
    tower, text = params["text"], config.text
    tokens = input_ids.shape[1]
    x = tower["embed"]["token"][input_ids] + tower["embed"]["position"][:tokens]
    mask = causal_mask(jnp.arange(tokens)[None], tokens) if text.causal else None
    states = norm(tower["norm"], text, run_layers(tower, text, x, mask))
    last = _ends(input_ids, text)[:, None, None]
    pooled = jnp.take_along_axis(states, last, axis=1)[:, 0]
    return dense(tower["head"], pooled) if config.sigmoid else linear(pooled, tower["projection"])


def similarity(params: Params, config: ClipConfig, images: jax.Array, texts: jax.Array) -> jax.Array:
    """Features [I,projection] and [T,projection] -> logits [I,T], larger where they fit."""
    found = unit(images) @ unit(texts).T * jnp.exp(params["logit_scale"])
    return found + params["logit_bias"] if config.sigmoid else found


def forward(
    params: Params, config: ClipConfig, pixels: jax.Array | None, input_ids: jax.Array | None
) -> jax.Array:
    """Features of the images or of the texts, whichever are given; `similarity` of both."""
    if pixels is None and input_ids is None:
        raise ValueError("neither images nor texts are given")
    if input_ids is None:
        return image_features(params, config, jnp.asarray(pixels))
    texts = text_features(params, config, jnp.asarray(input_ids))
    if pixels is None:
        return texts
    return similarity(params, config, image_features(params, config, jnp.asarray(pixels)), texts)


def _ends(input_ids: jax.Array, text: TextTowerConfig) -> jax.Array:
    """int [B]: the position that stands for the whole text."""
    if not text.causal:
        return jnp.full(input_ids.shape[0], input_ids.shape[1] - 1)
    wanted = input_ids if text.eos_id is None else (input_ids == text.eos_id).astype(jnp.int32)
    return jnp.argmax(wanted, axis=1)


def parameter_shapes(config: ClipConfig) -> Shapes:
    """Dotted name -> shape of every parameter; matrices are (out, in)."""
    text = config.text
    shapes = {f"vision.{name}": shape for name, shape in vit.parameter_shapes(config.vision).items()}
    tower: Shapes = {
        "embed.token": (text.vocab_size, text.hidden_size),
        "embed.position": (text.max_positions, text.hidden_size),
        **block_shapes(text),
        **norm_shapes("norm", text.hidden_size),
    }
    if config.sigmoid:
        tower |= dense_shapes("head", text.projection, text.hidden_size)
        shapes["logit_bias"] = ()
    else:
        tower["projection"] = (text.projection, text.hidden_size)
    shapes["logit_scale"] = ()
    return shapes | {f"text.{name}": shape for name, shape in tower.items()}
