"""Preprocessing is, bit by bit, what the checkpoints' own image processors do."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.vit_config import VitConfig
from engine.vision.preprocess import Preprocessing, preprocessing_from_hf, preprocessing_from_timm, stacked

REFERENCE = np.load(Path(__file__).parents[2] / "fixtures" / "preprocess.npz")
CASES = json.loads(str(REFERENCE["cases"]))
CONFIG = VitConfig(
    architecture="vit",
    image_size=(31, 31),
    patch_size=(8, 8),
    channels=3,
    hidden_size=8,
    intermediate_size=8,
    num_layers=1,
    num_heads=1,
    norm_eps=1e-6,
    activation="gelu",
)


def of(settings, config=CONFIG):
    read = preprocessing_from_timm if "pretrained_cfg" in settings else preprocessing_from_hf
    return read(settings, config)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_pixels_equal_those_of_transformers_and_timm(number):
    case, expected = CASES[number], REFERENCE[f"pixels{number}"]
    found = of(case["settings"]).prepare(REFERENCE[f"image{case['image']}"])
    if "pretrained_cfg" in case["settings"]:
        np.testing.assert_allclose(found, expected, atol=2.5e-7)  # divides by 255 where others multiply
    else:
        np.testing.assert_array_equal(found, expected)


def test_folders_without_settings_get_their_familys():
    def usual(architecture, size):

        return preprocessing_from_hf(
            {}, dataclasses.replace(CONFIG, architecture=architecture, image_size=size)
        )

    assert usual("vit", (384, 384)) == Preprocessing((384, 384), "bilinear")
    assert usual("siglip_vision_model", (256, 256)) == Preprocessing((256, 256), "bicubic")
    clip = usual("clip_vision_model", (336, 336))
    assert (clip.size, clip.crop, clip.mean[0]) == (336, (336, 336), 0.48145466)
    dino = usual("dinov2", (518, 518))
    assert (dino.size, dino.crop, dino.mean[0]) == (256, (224, 224), 0.485)


def test_a_model_of_grey_images_reads_colours_as_grey():

    settings = {"size": {"height": 2, "width": 2}, "image_mean": [0.5], "image_std": [0.5]}
    found = preprocessing_from_hf(settings, dataclasses.replace(CONFIG, channels=1))
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert found.prepare(red).shape == (1, 2, 2)
    np.testing.assert_allclose(found.prepare(red), (76 / 255 - 0.5) / 0.5, atol=1e-6)  # ITU-R 601: 0.299
    for architecture in ("vit", "clip_vision_model", "dinov2"):
        usual = preprocessing_from_hf({}, dataclasses.replace(CONFIG, channels=1, architecture=architecture))
        assert (usual.mean, usual.std) == ((0.5,), (0.5,))
    with pytest.raises(UnsupportedModel, match="3 channels with means of 1"):
        preprocessing_from_hf(settings, CONFIG)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"size": {"longest_edge": 32}}, BadCheckpoint, "height and width, or shortest_edge"),
        ({"size": {"height": 0, "width": 32}}, BadCheckpoint, "1 to 16384 pixels"),
        ({"size": "large"}, BadCheckpoint, "height and width"),
        ({"do_pad": True}, UnsupportedModel, "do_pad"),
        ({"resample": 9}, BadCheckpoint, "resample"),
        ({"image_std": [0.0, 1, 1]}, BadCheckpoint, "must not hold 0"),
        ({"image_mean": [float("nan")] * 3}, BadCheckpoint, "finite"),
        ({"image_mean": [0.5, 0.5]}, BadCheckpoint, "1 or 3 channels"),
        ({"size": {"shortest_edge": 32}}, UnsupportedModel, "without a fixed size"),
        ({"pretrained_cfg": {"crop_pct": 3}}, BadCheckpoint, "crop_pct"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, UnsupportedModel, "border"),
        ({"pretrained_cfg": {"interpolation": "mitchell"}}, UnsupportedModel, "mitchell"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_by_name(settings, error, words):
    with pytest.raises(error, match=words):
        of(settings)


def test_thin_images_keep_a_pixel():
    found = Preprocessing(size=8, crop=(8, 8)).prepare(np.full((3, 900, 3), 200, np.uint8))
    assert found.shape == (3, 8, 8)


def test_a_batch_is_filled_up_with_zeros():
    batch = stacked([np.ones((3, 2, 2), np.float32)], 4)
    assert batch.shape == (4, 3, 2, 2) and batch[0].all() and not batch[1:].any()
