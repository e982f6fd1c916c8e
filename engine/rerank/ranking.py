"""What a ranking is, whichever model made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from engine.errors import InvalidRequest
from engine.protocols import Float32

Scoring: TypeAlias = Literal["cross_encoder", "late_interaction", "bi_encoder"]
"""How documents were scored: query and document read together (the best and slowest), the vectors of all
their tokens compared, or one vector of each (what embedding search has found already)."""

MAX_DOCUMENTS = 1024


@dataclass(frozen=True)
class RankedDocument:
    """`index` is the document's place in the request. Scores of two models do not compare."""

    index: int
    score: float


@dataclass(frozen=True)
class Ranking:
    """The documents, best first; equal ones in the order given. `tokens` is how many were read."""

    results: tuple[RankedDocument, ...]
    scoring: Scoring
    tokens: int


def ranking(
    values: Float32, scoring: Scoring, tokens: int, top_n: int | None, *, scores: Float32 | None = None
) -> Ranking:
    """Ranked by `values`, the highest first; `scores` are what to say in their place."""
    order = np.argsort(-values, kind="stable")[:top_n]
    said = values if scores is None else scores
    return Ranking(tuple(RankedDocument(int(i), float(said[i])) for i in order), scoring, tokens)


def check_request(query: str, documents: Sequence[str], top_n: int | None) -> None:
    """Raises InvalidRequest: an empty query, more than MAX_DOCUMENTS documents, or top_n below 1."""
    if not query.strip():
        raise InvalidRequest("query is empty", param="query")
    if len(documents) > MAX_DOCUMENTS:
        raise InvalidRequest(
            f"documents must be at most {MAX_DOCUMENTS}, not {len(documents)}", param="documents"
        )
    if top_n is not None and top_n < 1:
        raise InvalidRequest(f"top_n must be at least 1, not {top_n}", param="top_n")
