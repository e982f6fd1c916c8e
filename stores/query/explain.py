"""Hits, and how they were found."""

from dataclasses import dataclass, field
from typing import Any

from stores.index.trace import PartTrace


@dataclass(slots=True)
class Hit:
    """One row found. `score` is what the order is by, higher is better:

    - vector search: the metric's score (cosine; inner product; minus the squared distance for l2);
    - text search: BM25; sparse search: the inner product;
    - several: their fusion, an order and not a similarity: by reciprocal rank between 0 and 2/61, by weights
      between 0 and 1;
    - with `score=`: what that function gave.

    `vector_score`, `text_score` and `sparse_score` are the row's own in each part, None where that was not
    asked; `group` is the value of `group_by`'s field.
    """

    # Not frozen: that takes five times as long to make, and a query's ten are a third of its time.

    id: str
    score: float
    metadata: dict[str, Any] = field(default_factory=dict)
    text: str | None = None
    vector_score: float | None = None
    text_score: float | None = None
    sparse_score: float | None = None
    group: Any = None


@dataclass(frozen=True)
class Explanation:
    """Why the hits are what they are. `allowed` of `rows` living rows passed the filter; `candidates` were
    ordered, `rescored` of them by another score; milliseconds of each stage and in all."""

    parts: tuple[PartTrace, ...]
    rows: int
    allowed: int
    candidates: int
    rescored: int
    filter_milliseconds: float
    search_milliseconds: float
    milliseconds: float

    def __str__(self) -> str:
        lines = [
            f"{self.allowed} of {self.rows} rows allowed, {self.candidates} candidates, "
            f"{self.rescored} scored again, {self.milliseconds:.2f} ms "
            f"(filter {self.filter_milliseconds:.2f}, search {self.search_milliseconds:.2f})"
        ]
        lines += [
            f"  {part.tier}: {part.reason}; {part.measured} measured, {part.ranked_exactly} ranked exactly, "
            f"{part.milliseconds:.2f} ms"
            for part in self.parts
        ]
        return "\n".join(lines)


class Hits(list[Hit]):
    """Hits, best first; `explanation` if it was asked for."""

    explanation: Explanation | None = None
