"""Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): one order out of several.

Only ranks count, so scores of different scales need no tuning.
"""

from collections.abc import Sequence

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
