"""The transformer block of vision transformers and of the text towers beside them: norms before branches.

    layers[i]: attn_norm  q k v o  q_norm k_norm  attn_scale (hidden,)
               mlp_norm  gate up down  mlp_scale (hidden,)

Each matrix is float32 (out, in) or a QTensor, norms and the other modules are {weight, bias}; what a
configuration leaves out is not there.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import jax

from engine.errors import BadCheckpoint
from engine.ops.activations import ACTIVATIONS, silu
from engine.ops.attention import attention
from engine.ops.linear import linear
from engine.ops.norms import layer_norm

Params: TypeAlias = dict[str, Any]
Shapes: TypeAlias = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What blocks are made of.

    Attributes:
        qkv_bias: whether queries, keys and values have biases.
        qk_norm: a norm on each head's queries and keys.
        layer_scale: branches are multiplied by a learnt vector (Touvron et al., 2021).
        gated: the MLP is SwiGLU.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    norm_eps: float
    activation: str
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_scale: bool = False
    gated: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise BadCheckpoint(f"hidden_size {self.hidden_size} is not a multiple of {self.num_heads} heads")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


def run_layers(params: Params, config: BlockConfig, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """All layers over [B,tokens,hidden]; `mask` as `ops.attention` takes it."""
    for layer in params["layers"]:
        x = x + attended(layer, config, norm(layer["attn_norm"], config, x), mask)
        x = x + mlp(layer, config, norm(layer["mlp_norm"], config, x))
    return x


def attended(layer: Params, config: BlockConfig, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    q, k, v = heads(layer, config, x)
    found = dense(layer["o"], attention(q, k, v, mask).reshape(x.shape))
    return found * layer["attn_scale"] if config.layer_scale else found


def heads(layer: Params, config: BlockConfig, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values, each [B,tokens,heads,dim]."""
    apart = (*x.shape[:2], config.num_heads, config.head_dim)
    q, k, v = (dense(layer[name], x).reshape(apart) for name in ("q", "k", "v"))
    if config.qk_norm:
        q, k = norm(layer["q_norm"], config, q), norm(layer["k_norm"], config, k)
    return q, k, v


def mlp(layer: Params, config: BlockConfig, x: jax.Array) -> jax.Array:
    if config.gated:
        inner = silu(dense(layer["gate"], x)) * dense(layer["up"], x)
    else:
        inner = ACTIVATIONS[config.activation](dense(layer["up"], x))
    found = dense(layer["down"], inner)
    return found * layer["mlp_scale"] if config.layer_scale else found


def dense(module: Params, x: jax.Array) -> jax.Array:
    return linear(x, module["weight"], module.get("bias"))


def norm(module: Params, config: BlockConfig, x: jax.Array) -> jax.Array:
    return layer_norm(x, module["weight"], module["bias"], config.norm_eps)


def block_shapes(config: BlockConfig) -> Shapes:
    """Dotted name -> shape of every parameter of the layers; matrices are (out, in)."""
    shapes: Shapes = {}
    for i in range(config.num_layers):
        shapes |= _layer_shapes(f"layers.{i}", config)
    return shapes


def _layer_shapes(at: str, config: BlockConfig) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = norm_shapes(f"{at}.attn_norm", hidden) | norm_shapes(f"{at}.mlp_norm", hidden)
    for name in "qkv":
        shapes |= dense_shapes(f"{at}.{name}", hidden, hidden, bias=config.qkv_bias)
    if config.qk_norm:
        shapes |= norm_shapes(f"{at}.q_norm", config.head_dim) | norm_shapes(f"{at}.k_norm", config.head_dim)
    shapes |= dense_shapes(f"{at}.o", hidden, hidden)
    for name in ("gate", "up") if config.gated else ("up",):
        shapes |= dense_shapes(f"{at}.{name}", inner, hidden)
    shapes |= dense_shapes(f"{at}.down", hidden, inner)
    if config.layer_scale:
        shapes |= {f"{at}.attn_scale": (hidden,), f"{at}.mlp_scale": (hidden,)}
    return shapes


def dense_shapes(name: str, out: int, inputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, inputs), **({f"{name}.bias": (out,)} if bias else {})}


def norm_shapes(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
