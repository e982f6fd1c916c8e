"""Training reads a folder of images for each class."""

import numpy as np
import pytest
from PIL import Image

from experiments.image_folder import image_folder


def test_classes_are_folders_and_every_fifth_image_is_for_the_test(tmp_path, capsys):
    for label, shade in (("cat", 40), ("dog", 200)):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.new("RGB", (30, 20), (shade, shade, number)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "dog" / "notes.png").write_text("no image")
    train, test = image_folder(tmp_path, 12)
    assert train.names == ("cat", "dog") and train.images.shape == (16, 12, 12, 3) and len(test.labels) == 4
    for part in (train, test):
        assert np.array_equal(part.labels == 1, part.images[:, 6, 6, 0] == 200)
    seen = {int(shade) for part in (train, test) for shade in part.images[:, 6, 6, 2]}
    assert seen == set(range(10)) and "left out: notes.png" in capsys.readouterr().err


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no folders of images"):
        image_folder(tmp_path, 12)
