"""What a search did in each part, for `explain`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PartTrace:
    """One part of a view: which tier answered, why, and how much it looked at.

    `expanded` nodes had their neighbours read, `measured` rows were compared by their codes, and
    `ranked_exactly` by their vectors. A flat part ranks all its allowed rows exactly; `codes` measures all
    of them, and ranks the best.
    """

    serial: int
    tier: Literal["flat", "codes", "matches", "graph", "bits", "blocks"]
    reason: str
    rows: int
    allowed: int
    expanded: int
    measured: int
    ranked_exactly: int
    milliseconds: float
