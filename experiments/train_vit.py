"""Trains the small vision transformer that Tarsia ships, `vit-fashion`, or one for images of yours.

    python -m experiments.train_vit --out runs/fashion              # Fashion-MNIST, about an hour on 2 cores
    python -m experiments.train_vit --out runs/fashion              # again: goes on where it was stopped
    python -m experiments.train_vit --out runs/pets --data pets/    # pets/cat/*.jpg, pets/dog/*.png, ...

The curves so far lie in OUT/history.json and, drawn anew at every checkpoint, in OUT/curves.png; the
averaged weights of the last step, whatever the test said on the way, in OUT/model, in Hugging Face's
layout. Killing it at any time loses at most `--save-every` steps. `--bfloat16` multiplies in bfloat16, for a
GPU or a CPU with AMX; the weights that are learnt, the loss and the averages stay float32.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.models import vit
from engine.models.vit_config import VitConfig
from engine.train.augment import Augmentation
from engine.train.checkpoints import Checkpoints
from engine.train.export import save_vit
from engine.train.step import Recipe, TrainState, initial_state, make_step
from experiments.fashion_mnist import Labelled, fashion_mnist
from experiments.image_folder import image_folder

_EVALUATED_TOGETHER = 500


def main() -> None:
    options = _options()
    train, test = fashion_mnist() if options.data is None else image_folder(options.data, options.size)
    config, recipe, dropped = plan(train, options)
    half = config.grid[0] * config.grid[1] // 2
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(out / "checkpoints")
    state, history = initial_state(config, recipe), []
    if (found := checkpoints.latest(state)) is not None:
        state, history = found
        print(f"goes on after step {int(state.step):,} of {recipe.steps:,}", file=sys.stderr)
    steps = {patches: make_step(config, recipe, patches=patches) for patches in (half, None)}
    evaluate = jax.jit(lambda params, images: predict(params, config, recipe, images))
    started, seen, sums = time.time(), 0, np.zeros(2)
    for number, (images, labels) in enumerate(_batches(train, recipe, int(state.step)), int(state.step)):
        state, metrics = steps[half if number < dropped else None](state, images, labels)
        sums += [float(metrics["loss"]), float(metrics["accuracy"])]
        seen += 1
        done = number + 1
        if done % options.save_every == 0 or done == recipe.steps:
            accuracy = float(np.mean(_predictions(evaluate, state, test.images) == test.labels))
            rate = seen * recipe.batch_size / (time.time() - started)
            row = {"step": done, "loss": sums[0] / seen, "train": sums[1] / seen, "test": accuracy}
            history.append(row)
            checkpoints.save(state, history)
            (out / "history.json").write_text(json.dumps(history, indent=1))
            draw_curves(history, recipe.steps, out / "curves.png")
            print(
                f"step {done:,} of {recipe.steps:,}  loss {row['loss']:.3f}  train {row['train']:.4f}  "
                f"test {accuracy:.4f}  {rate:.0f} images/s",
                file=sys.stderr,
                flush=True,
            )
            started, seen, sums = time.time(), 0, np.zeros(2)
    checkpoints.close()
    save_vit(out / "model", state.ema, config, mean=recipe.mean, std=recipe.std)


def plan(train: Labelled, options: argparse.Namespace) -> tuple[VitConfig, Recipe, int]:
    """The model, how it is trained, and after how many steps it sees whole images."""
    height, width, channels = train.images.shape[1:]
    patch = options.patch
    config = VitConfig(
        architecture="vit",
        image_size=(height, width),
        patch_size=(patch, patch),
        channels=channels,
        hidden_size=128,
        intermediate_size=384,
        num_layers=6,
        num_heads=4,
        norm_eps=1e-6,
        activation="gelu",
        labels=train.names,
    )
    batch = min(options.batch, len(train.images))
    per_epoch = len(train.images) // batch
    scaled = train.images.reshape(-1, channels) / 255
    recipe = Recipe(
        steps=per_epoch * (options.epochs + options.whole_epochs),
        batch_size=batch,
        learning_rate=3e-3,
        warmup=min(400, per_epoch),
        bfloat16=options.bfloat16,
        mean=tuple(float(m) for m in scaled.mean(0)),
        std=tuple(float(s) for s in scaled.std(0)),
        augmentation=Augmentation(flip=True, shift=2, erase=0.0),
    )
    return config, recipe, per_epoch * options.epochs


def predict(params: vit.Params, config: VitConfig, recipe: Recipe, images: jax.Array) -> jax.Array:
    """uint8 (n, height, width, channels) -> numbers of labels (n,)."""
    pixels = (images.astype(jnp.float32) / 255 - jnp.array(recipe.mean)) / jnp.array(recipe.std)
    return jnp.argmax(vit.logits(params, config, pixels.transpose(0, 3, 1, 2)), axis=1)


def _predictions(evaluate: jax.stages.Wrapped, state: TrainState, images: NDArray[np.uint8]) -> np.ndarray:
    parts = range(0, len(images), _EVALUATED_TOGETHER)
    return np.concatenate([evaluate(state.ema, images[at : at + _EVALUATED_TOGETHER]) for at in parts])


def _batches(data: Labelled, recipe: Recipe, start: int) -> Iterator[tuple[NDArray, NDArray]]:
    """From step `start` on, each epoch in an order of its own: what a run sees does not depend on stops."""
    per_epoch = len(data.images) // recipe.batch_size
    for step in range(start, recipe.steps):
        epoch, at = divmod(step, per_epoch)
        if at == 0 or step == start:
            order = np.random.default_rng((recipe.seed, epoch)).permutation(len(data.images))
        rows = order[at * recipe.batch_size : (at + 1) * recipe.batch_size]
        yield data.images[rows], data.labels[rows]


def draw_curves(history: list[dict[str, float]], steps: int, target: Path) -> None:
    """Loss, and accuracy on training and test images, so far; nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    at = [row["step"] for row in history]
    left.plot(at, [row["loss"] for row in history])
    for name in ("train", "test"):
        right.plot(at, [row[name] for row in history], label=name)
    left.set(title="loss", xlabel="step", xlim=(0, steps))
    right.set(title=f"accuracy: test {history[-1]['test']:.2%}", xlabel="step", xlim=(0, steps))
    right.legend()
    figure.savefig(target.with_suffix(".part.png"))
    plt.close(figure)
    target.with_suffix(".part.png").replace(target)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, curves and model")
    parser.add_argument("--epochs", type=int, default=16, help="in which half of the patches are seen")
    parser.add_argument("--whole-epochs", type=int, default=3, help="after them, with all patches")
    parser.add_argument("--data", type=Path, help="a folder with a folder of images for each class")
    parser.add_argument("--size", type=int, default=64, help="pixels a side of --data's images")
    parser.add_argument("--patch", type=int, default=4, help="pixels a side of a patch")
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16")
    parser.add_argument("--save-every", type=int, default=234, help="steps between checkpoints")
    return parser.parse_args()


if __name__ == "__main__":
    main()
