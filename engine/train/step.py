"""One step of training a vision transformer: a pure function, the same on one device and on many.

The step is jitted once. Over a mesh the batch is spread along its axis "data" and the state is on every
device; XLA then sums the gradients over devices, so the result is that of one device but for the order of
float32 sums. Nothing here reads a clock, a disk or a global random state.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax.contrib import MuonDimensionNumbers, muon

from engine.models import vit
from engine.models.vit_config import VitConfig
from engine.ops.dispatch import portable
from engine.train.augment import Augmentation, augment
from engine.train.initial import initial_params

Metrics: TypeAlias = dict[str, jax.Array]
Step: TypeAlias = Callable[["TrainState", jax.Array, jax.Array], tuple["TrainState", Metrics]]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        steps: of all, cosine schedule included; the first `warmup` of them rise to `learning_rate`.
        ema: how much of the averaged weights a step keeps; they are what is evaluated and shipped.
        smoothing: probability that is spread over all labels.
        mean, std: of pixels in 0..1, one for each channel.
        bfloat16: parameters and pixels are rounded to bfloat16 for each step's forward and backward pass;
            the weights that are learnt, the loss and the averages stay float32.
        seed: decides weights, order of images and augmentation.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup: int = 400
    weight_decay: float = 0.05
    ema: float = 0.999
    smoothing: float = 0.05
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    augmentation: Augmentation = field(default_factory=Augmentation)
    bfloat16: bool = False
    seed: int = 0


class TrainState(NamedTuple):
    """What a checkpoint holds. `step` counts those done; `ema` averages `params`."""

    step: jax.Array
    params: dict[str, Any]
    ema: dict[str, Any]
    optimizer: Any


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Muon (Jordan et al., 2024) for the layers' matrices, AdamW for all else, under one cosine schedule."""
    rate = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, recipe.warmup, recipe.steps)

    def matrices(params: dict[str, Any]) -> dict[str, Any]:
        def spec(path: Any, leaf: jax.Array) -> MuonDimensionNumbers | None:
            return MuonDimensionNumbers() if leaf.ndim == 2 and path[0].key == "layers" else None

        return jax.tree_util.tree_map_with_path(spec, params)  # type: ignore[no-any-return]

    step = muon(
        rate,
        weight_decay=recipe.weight_decay,
        adam_weight_decay=recipe.weight_decay,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=0.2,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), step)


def initial_state(config: VitConfig, recipe: Recipe) -> TrainState:
    params = initial_params(config, recipe.seed)
    average = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, average, make_optimizer(recipe).init(params))


def make_step(
    config: VitConfig, recipe: Recipe, *, patches: int | None = None, mesh: Mesh | None = None
) -> Step:
    """`(state, images, labels) -> (state, {"loss", "accuracy"})`, compiled, its state donated.

    Args:
        patches: how many patches of each image are looked at, drawn anew each time (Liu et al., 2022:
            PatchDropout); None is all. Half of them cost half of the time.
        mesh: devices along an axis "data" that share each batch; None is the default device.

    images uint8 [batch,height,width,channels], labels int [batch], batch a multiple of the devices.
    """
    optimizer = make_optimizer(recipe)

    def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
        pixels = _pixels(images, key, recipe)
        keep = None if patches is None else _drawn(config, key, images.shape[0], patches)
        gradient = jax.value_and_grad(_loss, has_aux=True)
        with portable():
            (loss, accuracy), grads = gradient(state.params, config, recipe, pixels, labels, keep)
        updates, moments = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short memory at first, or the average would be of random weights for an epoch.
        decay = jnp.minimum(recipe.ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        new = TrainState(state.step + 1, params, average, moments)
        return new, {"loss": loss, "accuracy": accuracy}

    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    everywhere = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    spread = NamedSharding(mesh, PartitionSpec("data"))  # type: ignore[no-untyped-call]
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(everywhere, spread, spread),
        out_shardings=(everywhere, everywhere),
    )


def _halved(parameter: jax.Array) -> jax.Array:
    return parameter.astype(jnp.bfloat16)


def _pixels(images: jax.Array, key: jax.Array, recipe: Recipe) -> jax.Array:
    changed = augment(images.astype(jnp.float32) / 255, key, recipe.augmentation)
    return ((changed - jnp.array(recipe.mean)) / jnp.array(recipe.std)).transpose(0, 3, 1, 2)


def _drawn(config: VitConfig, key: jax.Array, batch: int, patches: int) -> jax.Array:
    """[batch,prefix + patches]: the tokens that are kept, those before the patches always."""
    rows, columns = config.grid
    order = jnp.argsort(jax.random.uniform(jax.random.fold_in(key, 1), (batch, rows * columns)), axis=1)
    prefix = jnp.broadcast_to(jnp.arange(config.prefix), (batch, config.prefix))
    return jnp.concatenate([prefix, config.prefix + order[:, :patches]], axis=1)


def _loss(
    params: dict[str, Any],
    config: VitConfig,
    recipe: Recipe,
    pixels: jax.Array,
    labels: jax.Array,
    keep: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    if recipe.bfloat16:
        params, pixels = jax.tree.map(_halved, params), pixels.astype(jnp.bfloat16)
    tokens = vit.embed_patches(params, config, pixels)
    if keep is not None:
        tokens = jnp.take_along_axis(tokens, keep[:, :, None], axis=1)
    scores = vit.classified(params, config, vit.encode(params, config, tokens)).astype(jnp.float32)
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, scores.shape[1]), recipe.smoothing)
    loss = jnp.mean(optax.softmax_cross_entropy(scores, wanted))
    accuracy = jnp.mean((jnp.argmax(scores, axis=1) == labels).astype(jnp.float32))
    return loss, accuracy
