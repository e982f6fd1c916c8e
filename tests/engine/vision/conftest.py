"""The model that ships, and images that it has not learned from."""

from pathlib import Path

import numpy as np
import pytest

from engine import Engine

SAMPLE = Path(__file__).parents[2] / "fixtures" / "fashion_sample.npz"
"""The first 400 images of Fashion-MNIST's test set (MIT licence)."""


@pytest.fixture(scope="session")
def fashion() -> Engine:
    return Engine.load("vit-fashion")


@pytest.fixture(scope="session")
def minilm(minilm_path: Path) -> Engine:
    return Engine.load(minilm_path)


@pytest.fixture(scope="session")
def pieces() -> list[np.ndarray]:
    return list(np.load(SAMPLE)["images"])


@pytest.fixture(scope="session")
def piece_labels() -> np.ndarray:
    return np.load(SAMPLE)["labels"]
