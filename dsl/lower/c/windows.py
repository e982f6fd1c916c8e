"""Where an element of a window is in memory, and under which conditions it may be touched."""

from dataclasses import dataclass

from dsl.ir.affine import Ranges
from dsl.ir.ops import At, Index, Span
from dsl.ir.types import NIBBLES, RefType, Shape
from dsl.lower.c.dialects import parameter_name
from dsl.lower.c.layout import Layout
from dsl.lower.c.lines import Slot
from dsl.lower.c.names import Names


@dataclass(frozen=True)
class Place:
    """An element of a Ref, as C.

    Attributes:
        element: the lvalue; for nibbles the byte.
        last: its position on the last axis.
        guards: conditions that must hold before it may be touched.
    """

    element: str
    last: str
    guards: tuple[str, ...]

    def guarded(self, value: str, other: str) -> str:
        return f"{' && '.join(self.guards)} ? {value} : {other}" if self.guards else value


class Windows:
    """Addresses and guards of one kernel's windows.

    A guard is left out when the ranges of starts and the layout prove that it always holds. The two kinds:
    the position is within the Ref, and the slot is within the tile (a load leaves out the second where
    the first protects memory).
    """

    def __init__(self, facts: Ranges, names: Names) -> None:
        self.facts = facts
        self.names = names

    def place(
        self, ref: RefType, index: Index, shape: Shape, layout: Layout, slot: Slot, *, write: bool
    ) -> Place:
        positions: list[str] = []
        guards: list[str] = []
        for axis, entry in enumerate(index):
            coordinate = "0"
            if isinstance(entry, Span):
                coordinate = layout.coordinate(entry.tile_axis, shape, slot)
            position = self._position(entry, coordinate)
            bounds = self._bounds(ref, entry, axis, position)
            guards += bounds
            if isinstance(entry, Span) and layout.overhangs(entry.tile_axis, shape):
                guards += _within_tile(entry, ref.shape[axis], coordinate, bounds, write=write)
            positions.append(position)
        if write:
            guards += layout.owner(shape or (1, 1))
        return Place(_element(ref, positions), positions[-1], tuple(dict.fromkeys(guards)))

    def _position(self, entry: At | Span, coordinate: str) -> str:
        start = self.names[entry.start]
        if coordinate == "0":
            return start
        return coordinate if start == "0" else f"({start} + {coordinate})"

    def _bounds(self, ref: RefType, entry: At | Span, axis: int, position: str) -> list[str]:
        low, high = self.facts.interval(entry.start)
        size, extent = entry.size if isinstance(entry, Span) else 1, ref.shape[axis]
        below = [f"{position} >= 0"] if low is None or low < 0 else []
        return below + ([f"{position} < {extent}"] if high is None or high + size > extent else [])


def _within_tile(entry: Span, extent: int, coordinate: str, bounds: list[str], *, write: bool) -> list[str]:
    """The guard that keeps a slot past the tile's end from memory, unless a bound does it already."""
    if not write and any(f" < {extent}" in bound for bound in bounds):
        return []
    if f"{coordinate} < {extent}" in bounds and extent <= entry.size:
        return []
    return [f"{coordinate} < {entry.size}"]


def _element(ref: RefType, positions: list[str]) -> str:
    shape = ref.stored_shape
    last = f"nibble_byte({positions[-1]})" if ref.dtype in NIBBLES else positions[-1]
    linear = ""
    for extent, position in zip(shape, [*positions[:-1], last], strict=True):
        if linear in ("", "0"):
            linear = position
        else:
            linear = f"{linear} * {extent}" + ("" if position == "0" else f" + {position}")
            linear = f"({linear})"
    bare = linear[1:-1] if linear.startswith("(") and _encloses(linear) else linear
    return f"{parameter_name(ref)}[{bare}]"


def _encloses(text: str) -> bool:
    """True when the first parenthesis closes at the end."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position == len(text) - 1
    return False
