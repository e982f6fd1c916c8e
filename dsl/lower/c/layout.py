"""Which thread holds which element of a tile: two formulas, and the masks that join lanes.

A block is `warps` warps of 32 lanes. A thread holds an element of a tile in each of its register slots
(i, j): the one at (`row(i)`, `column(j)`). A tile of one row is held alike by all threads of a column's
place, one of one column by all threads of a row's place: so elementwise ops and broadcasts never leave
the registers. Slots past the end of a tile hold anything and are never looked at.

    layout   row(i)            column(j)        lanes of a row    lanes of a column
    row      warp + W i        lane + 32 j      16 8 4 2 1        none: one row is one warp
"""

from dataclasses import dataclass

from dsl.ir.types import Shape

LANES = 32


@dataclass(frozen=True)
class Layout:
    """A layout as data, for the emitter.

    Attributes:
        warps: warps of a block, a power of two.
        row_unit, column_unit: rows and columns that one slot of all threads covers.
        row_masks: xor masks of lanes that visit all lanes of a row.
    """

    warps: int
    row_unit: int
    column_unit: int
    row_masks: tuple[int, ...]

    @property
    def threads(self) -> int:
        return self.warps * LANES

    def slots(self, shape: Shape) -> tuple[int, int]:
        """Register slots a thread for a tile, in rows and in columns."""
        return -(-shape[0] // self.row_unit), -(-shape[1] // self.column_unit)

    def padded(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns that the slots cover; an axis of length 1 stays 1, for it is replicated."""
        rows, columns = self.slots(shape)
        return (
            1 if shape[0] == 1 else rows * self.row_unit,
            1 if shape[1] == 1 else columns * self.column_unit,
        )

    def row(self, i: str) -> str:
        """C expression of the row in slot row `i`."""
        return "warp" if i == "0" else f"(warp + {self.row_unit} * {i})"

    def column(self, j: str) -> str:
        """C expression of the column in slot column `j`."""
        return "lane" if j == "0" else f"(lane + {self.column_unit} * {j})"

    def coordinate(self, axis: int, shape: Shape, slot: tuple[str, str]) -> str:
        """C expression of the row (axis 0) or column (axis 1) of a tile of `shape`."""
        if shape[axis] == 1:
            return "0"
        return self.row(slot[0]) if axis == 0 else self.column(slot[1])

    def overhangs(self, axis: int, shape: Shape) -> bool:
        """True when some slots are past the end of the tile on that axis."""
        return shape[axis] != 1 and shape[axis] % (self.row_unit, self.column_unit)[axis] != 0

    def owner(self, shape: Shape) -> list[str]:
        """Conditions that leave one thread for each element of a replicated tile."""
        rows = ["warp == 0"] if shape[0] == 1 and self.warps > 1 else []
        return rows + (["lane == 0"] if shape[1] == 1 else [])


def row_layout(warps: int) -> Layout:
    """Each warp takes whole rows, each lane every 32nd column."""
    return Layout(warps, row_unit=warps, column_unit=LANES, row_masks=(16, 8, 4, 2, 1))
