"""A map goes back to where in the image the model looked."""

import numpy as np
import pytest

from engine.vision.heatmap import heat_map
from engine.vision.preprocess import Preprocessing


def test_a_map_of_a_crop_covers_the_crop_alone():
    """Twice as wide as high: the crop is the middle half."""
    image = np.zeros((100, 200, 3), np.uint8)
    found = heat_map(image, np.ones((4, 4), np.float32), Preprocessing(size=40, crop=(40, 40)), "a")
    inside = found.values > 0.5
    assert inside[:, 55:145].all() and not inside[:, :45].any() and not inside[:, 155:].any()
    assert found.label == "a" and found.values.shape == (100, 200)


def test_a_map_of_a_smaller_crop_leaves_the_edge_out():
    found = heat_map(
        np.zeros((100, 100, 3), np.uint8),
        np.ones((4, 4), np.float32),
        Preprocessing(size=(50, 50), crop=(40, 40)),
        None,
    )
    inside = found.values > 0.5
    assert inside[12:88, 12:88].all() and not inside[:8].any() and not inside[:, 92:].any()


def test_a_margin_that_was_added_is_cut_off_again():
    seen = np.zeros((4, 4), np.float32)
    seen[1:3, 1:3] = 1  # where the image is: 20 pixels in the middle of 40
    found = heat_map(np.zeros((20, 20, 3), np.uint8), seen, Preprocessing(size=None, crop=(40, 40)), None)
    assert found.values.shape == (20, 20) and found.values[5:15, 5:15].min() > 0.7


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_map_of_nothing_is_zero_and_its_overlay_the_image_in_grey(value):
    image = np.full((6, 5, 3), (255, 0, 0), np.uint8)
    found = heat_map(image, np.full((2, 2), value, np.float32), Preprocessing(size=(8, 8)), None)
    assert not found.values.any()
    assert found.overlay().tolist() == np.full((6, 5, 3), 76).tolist()
