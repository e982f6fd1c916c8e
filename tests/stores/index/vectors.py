"""Vectors like those of texts: clusters of clusters, of unit length unless said."""

import numpy as np


def clustered(count: int, dim: int, seed: int = 0, *, clusters: int = 40) -> np.ndarray:
    """float32 (count, dim), unit rows; the first rows are of the same mixture as the last."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    rows = centres[rng.integers(0, clusters, count)] + 0.9 * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(vectors: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """float64 scores (q, n), higher is better."""
    vectors, queries = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return -((queries**2).sum(1)[:, None] - 2 * queries @ vectors.T + (vectors**2).sum(1))
    return queries @ vectors.T


def recall(found: list[set[int]], scores: np.ndarray, k: int) -> float:
    """The share of the k best rows of each query that were found."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(
        np.mean([len(rows & set(line.tolist())) / k for rows, line in zip(found, best, strict=True)])
    )
