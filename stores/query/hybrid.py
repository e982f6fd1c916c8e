"""One order out of two: of vectors and of words.

Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009) counts ranks alone, so scores of different scales
need no tuning. Weights count scores, brought to [0, 1] within each candidate list (Bruch, Gai and Ingber,
"An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023): finer, where one knows which to trust.
"""

from collections.abc import Mapping, Sequence

RANK_OFFSET = 60


def fuse(rankings: Sequence[Sequence[int]], k: int) -> list[tuple[int, float]]:
    """The k best of all rankings (each best first) with their fused scores, best first.

    A score is the sum of 1 / (60 + rank) over the rankings that hold the item, rank from 1. Ties go to
    the item that an earlier ranking put higher.
    """
    fused: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            fused[item] = fused.get(item, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(fused.items(), key=lambda pair: -pair[1])[:k]


def weigh(lists: Sequence[tuple[float, Mapping[int, float]]], k: int) -> list[tuple[int, float]]:
    """The k best by the weighted sum of their scores, each list's brought to [0, 1]; best first.

    lists: (weight, score by item). An item that a list lacks scores 0 there, as its last one does.
    """
    fused: dict[int, float] = {}
    for weight, scores in lists:
        low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
        for item, score in scores.items():
            share = (score - low) / (high - low) if high > low else 1.0
            fused[item] = fused.get(item, 0.0) + weight * share
    return sorted(fused.items(), key=lambda pair: -pair[1])[:k]
