"""The picture of the README: what `vit-fashion` makes of Fashion-MNIST's 10,000 test images.

python -m experiments.fashion_report [PICTURE]     # default: experiments/pictures/vit_fashion.png
"""

import sys
from pathlib import Path

import numpy as np

from engine import Engine
from experiments.fashion_mnist import fashion_mnist

PICTURE = Path(__file__).parent / "pictures" / "vit_fashion.png"


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    _, test = fashion_mnist()
    model = Engine.load("vit-fashion")
    found = model.classify(list(test.images), top_k=1, progress=_progress)
    guessed = np.array([model.config.labels.index(best[0].label) for best in found])
    shares = np.array([best[0].probability for best in found])
    right = np.mean(guessed == test.labels)
    print(f"\n{right:.2%} of {len(test.images):,} test images")
    target.parent.mkdir(exist_ok=True)
    draw(test, guessed, shares, target)
    print(f"drawn in {target}")


def draw(test, guessed, shares, target: Path) -> None:
    """A confusion matrix in shares of each true class, and the first test image of each class."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = test.names
    matrix = np.zeros((len(names), len(names)))
    np.add.at(matrix, (test.labels, guessed), 1)
    matrix /= matrix.sum(axis=1, keepdims=True)
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    axes = left.subplots()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column] >= 0.005:
            tone = "white" if matrix[row, column] > 0.5 else "black"
            axes.text(
                column, row, f"{matrix[row, column]:.0%}", ha="center", va="center", color=tone, fontsize=7
            )
    axes.set(xlabel="predicted", ylabel="true", xticks=range(10), yticks=range(10))
    axes.set_xticklabels(names, rotation=45, ha="right")
    axes.set_yticklabels(names)
    for place, label in zip(right.subplots(2, 5).ravel(), range(10), strict=True):
        index = int(np.flatnonzero(test.labels == label)[0])
        place.imshow(test.images[index, ..., 0], cmap="gray")
        correct = guessed[index] == label
        place.set_title(
            f"{names[guessed[index]]}\n{shares[index]:.0%}", fontsize=9, color="black" if correct else "red"
        )
        place.axis("off")
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _progress(done: int, total: int) -> None:
    if done % 500 == 0:
        print(f"\r{done:,} of {total:,}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
