"""Labelled images for training: Fashion-MNIST as Debian packages it."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Of the package `dataset-fashion-mnist` (Xiao et al., 2017; MIT licence)."""
LABELS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True)
class Labelled:
    """`images` uint8 (n, height, width, channels), `labels` int32 (n,), numbers of `names`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    names: tuple[str, ...]


def fashion_mnist(folder: Path = DEBIAN) -> tuple[Labelled, Labelled]:
    """60,000 images to learn from and 10,000 to test, of 28x28 pixels of grey, white on black."""
    if not folder.is_dir():
        raise SystemExit(f"no data in {folder}: `apt-get install dataset-fashion-mnist`")
    return _part(folder, "train"), _part(folder, "t10k")


def _part(folder: Path, name: str) -> Labelled:
    images = _idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz")
    return Labelled(images[..., None], labels.astype(np.int32), LABELS)


def _idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file: two zero bytes, type 8 (uint8), the number of axes, their lengths, the numbers."""
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an IDX file of bytes")
    shape = np.frombuffer(data, ">u4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
