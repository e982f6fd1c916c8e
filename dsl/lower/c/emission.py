"""What the modules that emit ops share: the text, the dialect, names, layouts and shared memory."""

from dataclasses import dataclass

from dsl.lower.c.dialects import Dialect
from dsl.lower.c.layout import Layout
from dsl.lower.c.lines import Lines
from dsl.lower.c.names import Names
from dsl.lower.c.placement import Placement
from dsl.lower.c.shared import Pool


@dataclass(frozen=True)
class Emission:
    """One kernel on its way to source.

    `zero_ends` are (value id, axis) of tiles whose slots past the end of the axis hold zeros.
    """

    lines: Lines
    dialect: Dialect
    names: Names
    placement: Placement
    pool: Pool
    zero_ends: frozenset[tuple[int, int]]

    @property
    def main(self) -> Layout:
        return self.placement.main

    def enter(self) -> int:
        """Floats before the region of the next site, after the barrier that it may need."""
        base, due = self.pool.enter()
        if due:
            self.lines.add(self.dialect.barrier)
        return base

    def publish(self) -> None:
        """The barrier between the writes and the reads of a site."""
        self.lines.add(self.dialect.barrier)
        self.pool.published()
