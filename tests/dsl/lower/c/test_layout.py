"""The formulas of a layout: every element has a holder, and one owner."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lower.c.layout import (
    LANES,
    MMA_16_8_16,
    SIMDGROUP_8_8,
    matrix_layout,
    row_layout,
    spread_layout,
    wide_layout,
)

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))
LAYOUTS = [row_layout(warps) for warps in (1, 2, 4, 8)]
LAYOUTS += [matrix_layout(unit, warps) for unit in (MMA_16_8_16, SIMDGROUP_8_8) for warps in (1, 2, 4)]
LAYOUTS += [spread_layout(2, across, run) for across, run in ((2, 8), (8, 8), (32, 4))]

LAYOUTS += [wide_layout(warps, run) for warps, run in ((2, 1), (4, 4), (8, 2))]


def held(layout, shape, *, owned):
    """How often each element of a tile is held, by all threads or by its owners."""
    counts = {}
    rows, columns = layout.slots(shape)
    places = {
        axis: [
            compile(layout.coordinate(axis, shape, (str(s), str(s))), "", "eval")
            for s in range((rows, columns)[axis])
        ]
        for axis in (0, 1)
    }
    for warp in range(layout.warps):
        for lane in range(LANES):
            where = {"warp": warp, "lane": lane}
            if owned and not all(eval(test, where) for test in layout.owner(shape)):
                continue
            at = [[eval(place, where) for place in places[axis]] for axis in (0, 1)]
            for row in at[0]:
                for column in at[1]:
                    counts[row, column] = counts.get((row, column), 0) + 1
    return {at: n for at, n in counts.items() if at[0] < shape[0] and at[1] < shape[1]}


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(LAYOUTS))
def test_owners_hold_each_element_once(shape, layout):
    counts = held(layout, shape, owned=True)
    assert counts == {(r, c): 1 for r in range(shape[0]) for c in range(shape[1])}


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(LAYOUTS))
def test_replicated_tiles_are_held_by_all_threads_of_their_row_or_column(shape, layout):
    down = layout.warps * 2 ** len(layout.column_masks) if shape[0] == 1 else 1
    across = 2 ** len(layout.row_masks) if shape[1] == 1 else 1
    if layout.name == "wide":
        down, across = 1, across * (layout.warps if shape[1] == 1 else 1)
    assert set(held(layout, shape, owned=False).values()) == {down * across}


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(LAYOUTS))
def test_a_tile_overhangs_exactly_when_slots_lie_past_its_end(shape, layout):
    for axis in (0, 1):
        assert layout.overhangs(axis, shape) == (layout.padded(shape)[axis] > shape[axis])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: f"{x.name} {x.warps}")
def test_masks_join_exactly_the_lanes_of_a_row_and_those_of_a_column(layout):
    row, column = (compile(layout.axis(axis).position("0"), "", "eval") for axis in (0, 1))
    place = [tuple(eval(p, {"warp": 0, "lane": lane}) for p in (row, column)) for lane in range(LANES)]
    for masks, axis in ((layout.row_masks, 0), (layout.column_masks, 1)):
        for lane in range(LANES):
            reached = {lane}
            for mask in masks:
                reached |= {each ^ mask for each in reached}
            assert reached == {each for each in range(LANES) if place[each][axis] == place[lane][axis]}


def test_a_group_is_at_the_place_of_its_first_column():
    for layout in LAYOUTS:
        for width in {1, layout.columns.run, max(1, layout.columns.run // 2)}:
            grouped = layout.grouped(width)
            for group in range(5):
                texts = layout.columns.position(str(group * width)), grouped.columns.position(str(group))
                for lane in range(LANES):
                    assert len({eval(text, {"warp": 0, "lane": lane}) for text in texts}) == 1
