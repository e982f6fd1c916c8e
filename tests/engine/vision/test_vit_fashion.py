"""The model that ships: it loads by its own files, and knows clothes it has not learned from."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import engine.vision
from engine.models import vit
from engine.models.vit_hf import vit_from_hf
from engine.weights.build import build_params
from engine.weights.policy import Policy
from engine.weights.safetensors import SafetensorsSource
from engine.weights.vision import IGNORED, plain, vit_source

MODEL = Path(engine.vision.__file__).parent / "vit-fashion"
SAMPLE = Path(__file__).parents[2] / "fixtures" / "fashion_sample.npz"
"""The first 400 images of Fashion-MNIST's test set (MIT licence)."""


def test_it_names_nine_of_ten_pieces_of_the_test_set():
    config = vit_from_hf(json.loads((MODEL / "config.json").read_text()))
    source, rename = vit_source(config, plain(SafetensorsSource(MODEL)))
    params = build_params(source, vit.parameter_shapes(config), rename, Policy(), IGNORED)
    settings = json.loads((MODEL / "preprocessor_config.json").read_text())
    sample = np.load(SAMPLE)
    pixels = (sample["images"] / 255 - settings["image_mean"][0]) / settings["image_std"][0]
    scores = vit.logits(params, config, jnp.asarray(pixels[:, None], jnp.float32))
    assert config.labels[:3] == ("t-shirt", "trouser", "pullover")
    assert np.mean(np.argmax(scores, axis=1) == sample["labels"]) >= 0.9


def test_it_is_small_enough_to_ship():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 8 << 20
