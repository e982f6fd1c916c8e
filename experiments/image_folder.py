"""Labelled images out of folders, one for each class, as most collections of images come."""

import sys
from pathlib import Path

import numpy as np

from engine.errors import FileError
from engine.vision.io import read_image
from engine.vision.preprocess import Preprocessing
from experiments.fashion_mnist import Labelled

_TEST_SHARE = 5
"""Every fifth image of each class, in the order of names, is for the test."""


def image_folder(folder: Path, side: int) -> tuple[Labelled, Labelled]:
    """Images to learn from and to test: the shorter side resized to `side`, then the middle of them.

    Files that cannot be read are named on stderr and left out. SystemExit without two classes.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(classes) < 2:
        raise SystemExit(f"{folder} holds no folders of images, one for each of two classes or more")
    fit = Preprocessing(size=side, resample="bicubic", crop=(side, side))
    train: list[tuple[np.ndarray, int]] = []
    test: list[tuple[np.ndarray, int]] = []
    for label, inside in enumerate(classes):
        for number, image in enumerate(_images(inside, fit)):
            (test if number % _TEST_SHARE == 0 else train).append((image, label))
    names = tuple(path.name for path in classes)
    return _labelled(train, names), _labelled(test, names)


def _images(folder: Path, fit: Preprocessing) -> list[np.ndarray]:
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            found.append(fit.fitted(read_image(path)))
        except FileError as error:
            print(f"left out: {error}", file=sys.stderr)
    if len(found) < 2:
        raise SystemExit(f"{folder} holds fewer than two images that can be read")
    return found


def _labelled(pairs: list[tuple[np.ndarray, int]], names: tuple[str, ...]) -> Labelled:
    images, labels = zip(*pairs, strict=True)
    return Labelled(np.stack(images), np.array(labels, np.int32), names)
