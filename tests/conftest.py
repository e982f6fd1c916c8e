"""Fixtures that every part shares: the real default models, pulled once and kept."""

from pathlib import Path

import pytest

from engine.pull import pull
from engine.registry import models_dir


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The folder of the real chat model; `make test` has pulled it, otherwise it is pulled now."""
    pull("smollm2-135m-instruct")
    return models_dir() / "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def dinov2_path() -> Path:
    """The folder of the real image model, an ONNX file; 90 MB, pulled by the first test that needs it."""
    pull("dinov2-small")
    return models_dir() / "dinov2-small"


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The folder of the real embedding model."""
    pull("all-minilm-l6-v2")
    return models_dir() / "all-minilm-l6-v2"
