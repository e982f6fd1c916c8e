from hypothesis import given
from hypothesis import strategies as st

from stores.segment.planner import FAN_IN, Load, plan_merge

LOADS = st.lists(st.integers(0, 3_000_000), max_size=12)


def loads_of(sizes: list[int]) -> list[Load]:
    return [Load(str(place), size, size) for place, size in enumerate(sizes)]


def test_few_segments_of_any_size_are_left_alone() -> None:
    assert plan_merge(loads_of([8192, 8192, 8192, 33_000, 33_000, 2_000_000])) == []
    assert plan_merge([]) == []


def test_four_of_a_size_become_one_smallest_first() -> None:
    assert plan_merge(loads_of([33_000] * 4 + [8000] * 4)) == ["4", "5", "6", "7"]


def test_a_segment_with_many_dead_is_rewritten_alone() -> None:
    assert plan_merge([Load("a", 100, 100), Load("b", 100, 69)]) == ["b"]
    assert plan_merge([Load("a", 100, 71)]) == []
    assert plan_merge([Load("a", 100, 0)]) == ["a"]


@given(LOADS)
def test_merging_as_planned_ends_with_few_segments_and_every_row(sizes: list[int]) -> None:
    loads = loads_of([size for size in sizes if size])
    merges = 0
    while names := plan_merge(loads):
        live = sum(load.live for load in loads if load.name in names)
        loads = [load for load in loads if load.name not in names] + [Load(f"m{merges}", live, live)]
        merges += 1
        assert merges <= len(sizes)
    assert sum(load.live for load in loads) == sum(sizes)
    assert len(loads) < FAN_IN * 7


def test_rows_sealed_one_memtable_at_a_time_are_rewritten_a_few_times_only() -> None:
    loads: list[Load] = []
    written = 0
    for number in range(400):
        loads.append(Load(f"s{number}", 8192, 8192))
        while names := plan_merge(loads):
            live = sum(load.live for load in loads if load.name in names)
            written += live
            loads = [load for load in loads if load.name not in names] + [Load(f"m{written}", live, live)]
    assert len(loads) <= 3 * 5
    assert written / (400 * 8192) <= 5
