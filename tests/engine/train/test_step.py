"""The training step: it learns, repeats itself, resumes, and is the same over several devices."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np

from engine.models.vit_config import VitConfig
from engine.train.augment import Augmentation, augment
from engine.train.checkpoints import Checkpoints
from engine.train.step import Recipe, initial_state, make_step

CONFIG = VitConfig(
    architecture="vit",
    image_size=(8, 8),
    patch_size=(4, 4),
    channels=1,
    hidden_size=16,
    intermediate_size=32,
    num_layers=1,
    num_heads=2,
    norm_eps=1e-6,
    activation="gelu",
    labels=("dark", "light"),
)
RECIPE = Recipe(
    steps=60, batch_size=16, warmup=4, mean=(0.5,), std=(0.5,), augmentation=Augmentation(shift=1, erase=0.1)
)


def batch(number):
    random = np.random.default_rng(number)
    labels = random.integers(0, 2, 16).astype(np.int32)
    noise = random.integers(0, 100, (16, 8, 8, 1))
    return (noise + 120 * labels[:, None, None, None]).astype(np.uint8), labels


def run(step, state, numbers):
    for number in numbers:
        state, metrics = step(state, *batch(number))
    return state, metrics


def test_it_learns_to_tell_light_from_dark():
    state, metrics = run(make_step(CONFIG, RECIPE), initial_state(CONFIG, RECIPE), range(60))
    assert int(state.step) == 60
    assert float(metrics["accuracy"]) == 1.0


def test_a_run_that_goes_on_from_a_checkpoint_has_the_weights_of_one_that_never_stopped(tmp_path):
    step = make_step(CONFIG, RECIPE, patches=2)
    whole, _ = run(step, initial_state(CONFIG, RECIPE), range(6))
    half, _ = run(step, initial_state(CONFIG, RECIPE), range(3))
    store = Checkpoints(tmp_path / "run")
    store.save(half, [{"step": 3, "loss": 0.5}])
    store.close()
    again = Checkpoints(tmp_path / "run")
    found, history = again.latest(initial_state(CONFIG, RECIPE))
    again.close()
    assert history == [{"step": 3, "loss": 0.5}]
    resumed, _ = run(step, found, range(3, 6))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


CHILD = """
import sys
from pathlib import Path
from engine.train.checkpoints import Checkpoints
from engine.train.step import initial_state, make_step
from tests.engine.train.test_step import CONFIG, RECIPE, batch
store, state = Checkpoints(Path(sys.argv[1])), initial_state(CONFIG, RECIPE)
step = make_step(CONFIG, RECIPE, patches=2)
for number in range(10_000):
    state, _ = step(state, *batch(number))
    if (number + 1) % 3 == 0:
        store.save(state, [{"step": number + 1}])
        print(number + 1, flush=True)
"""


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    """By SIGKILL, while it trains and writes checkpoints in the background."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if int(line) >= 12:
                child.kill()
                break
    store = Checkpoints(tmp_path / "run")
    found, history = store.latest(initial_state(CONFIG, RECIPE))
    store.close()
    reached = int(found.step)
    assert reached >= 3 and reached % 3 == 0 and history == [{"step": reached}]
    step = make_step(CONFIG, RECIPE, patches=2)
    resumed, _ = run(step, found, range(reached, reached + 2))
    whole, _ = run(step, initial_state(CONFIG, RECIPE), range(reached + 2))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_in_bfloat16_it_learns_as_well_and_keeps_float32_weights():
    recipe = dataclasses.replace(RECIPE, bfloat16=True)
    state, metrics = run(make_step(CONFIG, recipe), initial_state(CONFIG, recipe), range(60))
    assert float(metrics["accuracy"]) == 1.0
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}


def test_a_new_folder_has_no_checkpoint(tmp_path):
    store = Checkpoints(tmp_path / "run")
    assert store.latest(initial_state(CONFIG, RECIPE)) is None
    store.close()


def test_augmentation_keeps_range_and_shape_and_is_its_keys():
    images = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)
    settings = Augmentation(shift=2, erase=1.0)
    one, same, other = (augment(images, jax.random.key(n), settings) for n in (1, 1, 2))
    assert one.shape == images.shape
    assert float(one.min()) >= 0 and float(one.max()) <= 1
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


_SPREAD = """
import jax, numpy as np
from jax.sharding import Mesh
from tests.engine.train.test_step import CONFIG, RECIPE, initial_state, make_step, run
assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
alone, first = run(make_step(CONFIG, RECIPE), initial_state(CONFIG, RECIPE), range(4))
spread, second = run(make_step(CONFIG, RECIPE, mesh=mesh), initial_state(CONFIG, RECIPE), range(4))
for one, other in zip(jax.tree.leaves(alone.params), jax.tree.leaves(spread.params), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5)
assert len(next(iter(jax.tree.leaves(spread.params))).sharding.device_set) == 4
print("same", float(first["loss"]) - float(second["loss"]))
"""


def test_four_devices_get_the_result_of_one():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", _SPREAD], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("same")
