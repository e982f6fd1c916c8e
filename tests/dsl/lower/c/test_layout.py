"""The formulas of a layout: every element has a holder, and one owner."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.lower.c.layout import LANES, row_layout

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def held(layout, shape, *, owned):
    """How often each element of a tile is held, by all threads or by its owners."""
    counts = {}
    rows, columns = layout.slots(shape)
    for warp in range(layout.warps):
        for lane in range(LANES):
            where = {"warp": warp, "lane": lane}
            if owned and not all(eval(test, where) for test in layout.owner(shape)):
                continue
            for i in range(rows):
                for j in range(columns):
                    at = tuple(eval(layout.coordinate(a, shape, (str(i), str(j))), where) for a in (0, 1))
                    counts[at] = counts.get(at, 0) + 1
    return {at: n for at, n in counts.items() if at[0] < shape[0] and at[1] < shape[1]}


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from((1, 2, 4, 8)))
def test_owners_hold_each_element_once(shape, warps):
    counts = held(row_layout(warps), shape, owned=True)
    assert counts == {(r, c): 1 for r in range(shape[0]) for c in range(shape[1])}


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from((1, 2, 4, 8)))
def test_replicated_tiles_are_held_by_all_threads_of_their_row_or_column(shape, warps):
    layout = row_layout(warps)
    times = (warps if shape[0] == 1 else 1) * (LANES if shape[1] == 1 else 1)
    assert set(held(layout, shape, owned=False).values()) == {times}


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from((1, 2, 4, 8)))
def test_a_tile_overhangs_exactly_when_slots_lie_past_its_end(shape, warps):
    layout = row_layout(warps)
    for axis in (0, 1):
        assert layout.overhangs(axis, shape) == (layout.padded(shape)[axis] > shape[axis])


@pytest.mark.parametrize("lane", range(LANES))
def test_the_row_masks_reach_every_lane(lane):
    reached = {lane}
    for mask in row_layout(4).row_masks:
        reached |= {each ^ mask for each in reached}
    assert reached == set(range(LANES))
