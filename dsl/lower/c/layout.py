"""Which thread holds which element of a tile: two formulas, as data.

A block is `warps` warps of 32 lanes. A thread holds an element of a tile in each of its register slots
(i, j): the one at (`rows` of i, `columns` of j). A tile of one row is held alike by all threads of a
column's place, one of one column by all threads of a row's place: so elementwise ops and broadcasts never
leave the registers. Slots past the end of a tile hold anything and are never looked at.

    layout    row                                     column                               lanes of a row
    row       warp + W i                              lane + 32 j                          16 8 4 2 1
    wide      i                                       lane + 32 warp + 32W j               16 8 4 2 1
    m16n8k16  16 warp + lane/4 + 8 (i%2) + 16W (i/2)  2 (lane%4) + j%2 + 8 (j/2)           2 1
    8x8       8 warp + lane's bits 1 2 4 + 8W i       2 4 for lane's bits 0 3 + j%2 + ...  8 1

Where rows allow it, `row` and `wide` give each lane a run of neighbours, to read 16 bytes at once. The lanes
that are not of a row are of a column. The third is the accumulator of NVIDIA's mma (PTX ISA),
the fourth that of Apple's simdgroup_matrix, which Apple does not document and MLX's kernels rely on.
"""

import dataclasses
from dataclasses import dataclass

from dsl.ir.types import Shape

LANES = 32


@dataclass(frozen=True)
class Axis:
    """Where a slot is along one axis: a sum of parts of the slot's number, the warp and the lane.

    Attributes:
        run: a power of two; slot s is at `s % run * stride + s // run * step`.
        warp: distance from one warp to the next, 0 if all are at one place.
        lanes: (bit of the lane, distance when it is set), in order.
        unit: how far all threads reach with `slots` slots, without a gap.
    """

    run: int
    stride: int
    step: int
    warp: int
    lanes: tuple[tuple[int, int], ...]
    unit: int
    slots: int

    def count(self, extent: int) -> int:
        """Slots a thread for `extent` positions; one when it is 1, for that is held by all."""
        return 1 if extent == 1 else -(-extent // self.unit) * self.slots

    def padded(self, extent: int) -> int:
        return 1 if extent == 1 else -(-extent // self.unit) * self.unit

    @property
    def mask(self) -> int:
        """The lane's bits that this axis depends on."""
        return sum(1 << bit for bit, _ in self.lanes)

    def position(self, slot: str) -> str:
        """C expression of where a slot is: "0", a number, a name, or a sum of those."""
        terms = [_times(self.warp, "warp"), *_lane_terms(self.lanes), *self._slot_terms(slot)]
        kept = [term for term in terms if term != "0"]
        return " + ".join(kept) if kept else "0"

    def _slot_terms(self, slot: str) -> list[str]:
        if slot.isdigit():
            outer, inner = divmod(int(slot), self.run)
            return [str(inner * self.stride + outer * self.step)]
        name = slot if slot.isidentifier() else f"({slot})"
        if self.run == 1:
            return [_times(self.step, name)]
        within, shift = f"({name} & {self.run - 1})", self.run.bit_length() - 1
        return [_times(self.stride, within), _times(self.step, f"({name} >> {shift})")]


def _times(factor: int, name: str) -> str:
    return "0" if factor == 0 else name if factor == 1 else f"{factor} * {name}"


def _lane_terms(lanes: tuple[tuple[int, int], ...]) -> list[str]:
    """Neighbouring bits with doubling distances are one term."""
    groups: list[list[tuple[int, int]]] = []
    for bit, distance in lanes:
        if groups and groups[-1][-1] == (bit - 1, distance // 2):
            groups[-1].append((bit, distance))
        else:
            groups.append([(bit, distance)])
    return [_lane_term(group[0][0], len(group), group[0][1]) for group in groups]


def _lane_term(first: int, bits: int, distance: int) -> str:
    shifted = f"lane >> {first}" if first else "lane"
    if first + bits == LANES.bit_length() - 1:
        return _times(distance, f"({shifted})" if first else shifted)
    return _times(distance, f"({shifted} & {(1 << bits) - 1})")


@dataclass(frozen=True)
class MatrixUnit:
    """An instruction that multiplies matrices held by a warp, and how lanes hold them.

    The left operand is held as a tile of its shape is: row as the accumulator's, column as the inner axis.

    Attributes:
        rows, depth: of one instruction; its accumulator has 8 columns, two neighbours in each slot pair.
        row_lanes, column_lanes: as in `Axis`, of one accumulator.
        dtypes: of operands; sums are f32.
    """

    name: str
    rows: int
    depth: int
    row_lanes: tuple[tuple[int, int], ...]
    column_lanes: tuple[tuple[int, int], ...]
    dtypes: tuple[str, ...]


MMA_16_8_16 = MatrixUnit("mma.m16n8k16", 16, 16, ((2, 1), (3, 2), (4, 4)), ((0, 2), (1, 4)), ("f16", "bf16"))
SIMDGROUP_8_8 = MatrixUnit(
    "simdgroup_matrix 8x8", 8, 8, ((1, 1), (2, 2), (4, 4)), ((0, 2), (3, 4)), ("f16", "bf16", "f32")
)


@dataclass(frozen=True)
class Layout:
    """A layout as data, for the emitter.

    Attributes:
        warps: warps of a block, a power of two.
        unit: the matrix unit whose accumulators tiles are held as, if any.
    """

    warps: int
    rows: Axis
    columns: Axis
    unit: MatrixUnit | None = None

    @property
    def name(self) -> str:
        return self.unit.name if self.unit else "wide" if self.columns.warp else "row"

    @property
    def threads(self) -> int:
        return self.warps * LANES

    def grouped(self, width: int) -> "Layout":
        """The same with a slot for each `width` neighbours of a run, at the place of the first."""
        old = self.columns
        columns = dataclasses.replace(
            old, run=old.run // width, stride=old.stride * width, slots=old.slots // width
        )
        return dataclasses.replace(self, columns=columns)

    @property
    def row_masks(self) -> tuple[int, ...]:
        """Xor masks of lanes that visit all lanes of a row."""
        return tuple(1 << bit for bit, _ in reversed(self.columns.lanes))

    @property
    def column_masks(self) -> tuple[int, ...]:
        """Xor masks of lanes that visit all lanes of one warp's part of a column."""
        return tuple(1 << bit for bit, _ in reversed(self.rows.lanes))

    def axis(self, axis: int) -> Axis:
        return (self.rows, self.columns)[axis]

    def slots(self, shape: Shape) -> tuple[int, int]:
        """Register slots a thread for a tile, in rows and in columns."""
        return self.rows.count(shape[0]), self.columns.count(shape[1])

    def padded(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns that the slots cover; an axis of length 1 stays 1, for it is replicated."""
        return self.rows.padded(shape[0]), self.columns.padded(shape[1])

    def coordinate(self, axis: int, shape: Shape, slot: tuple[str, str]) -> str:
        """C expression of the row (axis 0) or column (axis 1) of a tile of `shape`."""
        if shape[axis] == 1:
            return "0"
        found = self.axis(axis).position(slot[axis])
        return f"({found})" if " " in found else found

    def overhangs(self, axis: int, shape: Shape) -> bool:
        """True when some slots are past the end of the tile on that axis."""
        return shape[axis] != 1 and shape[axis] % self.axis(axis).unit != 0

    def owner(self, shape: Shape) -> list[str]:
        """Conditions that leave one thread for each element of a replicated tile."""
        alike = [axis for axis, extent in zip((self.rows, self.columns), shape, strict=True) if extent == 1]
        mask = sum(axis.mask for axis in alike)
        warps = ["warp == 0"] if self.warps > 1 and any(axis.warp for axis in alike) else []
        lanes = [f"(lane & {mask}) == 0" if mask != LANES - 1 else "lane == 0"] if mask else []
        return warps + lanes


def row_layout(warps: int) -> Layout:
    """Each warp takes whole rows, each lane every 32nd column."""
    return spread_layout(warps, across=LANES, run=1)


def spread_layout(warps: int, across: int, run: int) -> Layout:
    """`across` lanes along a row, each with `run` neighbours at a time; the other lanes take more rows."""
    bits = across.bit_length() - 1
    down = LANES // across
    columns = Axis(
        run, 1, run * across, 0, tuple((b, run << b) for b in range(bits)), unit=run * across, slots=run
    )
    lanes = tuple((b, 1 << (b - bits)) for b in range(bits, LANES.bit_length() - 1))
    return Layout(warps, Axis(1, 0, down * warps, down, lanes, unit=down * warps, slots=1), columns)


def wide_layout(warps: int, run: int) -> Layout:
    """All threads lie along one row, each with `run` neighbours at a time, and hold all rows."""
    lanes = tuple((b, run << b) for b in range(LANES.bit_length() - 1))
    across = run * LANES * warps
    columns = Axis(run, 1, across, run * LANES, lanes, unit=across, slots=run)
    return Layout(warps, Axis(1, 0, 1, 0, (), unit=1, slots=1), columns)


def matrix_layout(unit: MatrixUnit, warps: int) -> Layout:
    """Tiles as accumulators: each warp takes `unit.rows` rows and all columns."""
    blocks = unit.rows // 8
    rows = Axis(blocks, 8, unit.rows * warps, unit.rows, unit.row_lanes, unit.rows * warps, blocks)
    columns = Axis(2, 1, 8, 0, unit.column_lanes, unit=unit.depth, slots=unit.depth // 4)
    return Layout(warps, rows, columns, unit)
