"""Which segments to merge: decides, and does nothing."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

FAN_IN = 4
DEAD_SHARE = 0.3
_SMALLEST_TIER = 8192


@dataclass(frozen=True)
class Load:
    """One segment's rows, dead ones included, and those alive."""

    name: str
    rows: int
    live: int


def plan_merge(loads: Sequence[Load]) -> list[str]:
    """Names of segments to merge into one, oldest first; empty if nothing needs it.

    A segment with more than 30 % dead is rewritten; four of a size become one. So there are at most
    three segments per factor of four in size, and a row is rewritten once per such factor.
    """
    for load in loads:
        if load.live < (1 - DEAD_SHARE) * load.rows:
            return [load.name]
    tiers: dict[int, list[str]] = defaultdict(list)
    for load in loads:
        tier = round(math.log(max(load.live, _SMALLEST_TIER) / _SMALLEST_TIER, FAN_IN))
        tiers[tier].append(load.name)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= FAN_IN:
            return tiers[tier]
    return []
