"""Tuning: the slow lose, the wrong are dropped, `xla` always takes part, and nothing happens unasked."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import KernelError, cdiv, pid, tile
from dsl.runtime import autotune, targets, tuned
from dsl.runtime.autotune import fastest, measure, points
from dsl.runtime.profile import PROFILE, Tuned
from dsl.runtime.tuned import Trial
from tests.dsl.runtime.rivals import Native, Rival, Spilling, broken, slow, wrong

X = jnp.asarray(np.random.default_rng(0).standard_normal((12, 7)), jnp.float32)


@pytest.fixture
def doubled():
    """A kernel of this test's own, so that nothing of it was looked up before."""

    @dsl.kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=lambda x: dsl.like(x), search={"BM": (4, 8, 12)})
    def doubled(x, o, *, BM=8):
        rows = tile(pid(0) * BM, BM)
        o[rows, :] = x[rows, :] * 2.0

    return doubled


@pytest.fixture
def rivals(monkeypatch):
    """Has only the given targets race against XLA."""
    given = []

    def race(*these):
        given.extend(these)
        for each in these:
            targets.register(each)
        monkeypatch.setitem(targets.MEASURED, "cpu", tuple(each.name for each in these))

    yield race
    for each in given:
        targets.unregister(each.name)


def reason_of(record, backend):
    return next(each.reason for each in record.trials if each.backend == backend)


def test_a_slow_candidate_loses_and_xla_is_always_among_them(doubled, rivals):
    rivals(Rival("sleepy", slow))
    record = doubled.tune(X)
    assert record.backend == "xla" and {each.backend for each in record.trials} == {"xla", "sleepy"}
    assert min(each.seconds for each in record.trials if each.backend == "sleepy") > 0.02


def test_wrong_broken_and_refusing_candidates_are_dropped_with_their_reasons(doubled, rivals):
    rivals(Rival("wrong", wrong), Rival("broken", broken), Rival("shy", reason="it is shy"))
    record = doubled.tune(X)
    assert record.backend == "xla"
    assert "wrong on these arrays: 84 of 84 elements of o are wrong" in reason_of(record, "wrong")
    assert "it broke when it ran" in reason_of(record, "broken")
    assert reason_of(record, "shy") == "it is shy"
    assert "shy: it is shy" in str(record)


def test_what_spills_registers_is_not_timed(doubled, rivals):
    rivals(Spilling("spilling"))
    trials = [each for each in doubled.tune(X).trials if each.backend == "spilling"]
    assert {each.keywords.get("BM", 8): each.reason for each in trials} == {
        4: None,
        8: "it spills 64 B of registers",
        12: "it spills 64 B of registers",
    }


def test_calls_follow_the_record_but_for_forced_ones(doubled, rivals, monkeypatch):
    rivals(Native("native"))
    assert doubled.explain(X).backend == "xla"
    monkeypatch.setattr(autotune, "fastest", lambda trials: trials[-1])
    record = doubled.tune(X)
    assert (record.backend, record.keywords) == ("native", {"BM": 12})
    told = doubled.explain(X)
    assert (told.backend, told.grid, told.tuned) == ("native", (1,), record)
    assert "BM=12, the best of" in str(told) and "% of the roofline" in str(told)
    np.testing.assert_array_equal(jax.jit(jax.vmap(doubled))(jnp.stack([X, X])), jnp.stack([2 * X, 2 * X]))
    assert doubled.explain(X, backend="xla").tuned is None
    assert doubled.explain(X[:5]).backend == "xla"  # another shape is another record
    assert doubled.explain(X, BM=4).backend == "xla"  # as is another choice of the caller's


def test_an_updated_array_is_tuned_on_a_copy():
    @dsl.kernel(grid=lambda new: new.shape[0])
    def put(new, at, cache):
        cache[at[0] + pid(0), :] = new[pid(0), :]

    args, cache = (X[:4], jnp.array([3], jnp.int32)), jnp.zeros((12, 7))
    record = put.tune(*args, out=dsl.update(cache))
    assert {each.backend for each in record.trials if each.seconds} >= {"xla"} and not cache.any()
    assert put.explain(*args, out=dsl.update(cache)).tuned == record
    np.testing.assert_array_equal(put(*args, out=dsl.update(cache))[3:7], X[:4])


def test_a_recorded_backend_that_refuses_by_now_is_passed_over_with_its_reason(doubled, rivals, monkeypatch):
    native = Native("native")
    rivals(native)
    monkeypatch.setattr(autotune, "fastest", lambda trials: trials[-1])
    assert doubled.tune(X).backend == "native"
    native.reason = "its compiler went away"
    told = doubled.explain(X)
    assert (told.backend, told.skipped[0].reason) == ("xla", "its compiler went away")


def test_equal_times_go_to_xla():
    trials = [Trial("xla", {}, 1.00), Trial("xla", {"BM": 4}, 1.1), Trial("cpu", {}, 0.97)]
    assert fastest(trials).backend == "xla"
    assert fastest([*trials, Trial("cpu", {"BM": 4}, 0.9)]) == Trial("cpu", {"BM": 4}, 0.9)
    assert fastest([Trial("cpu", {}, 2.0)]).backend == "cpu"


class Clock:
    """Stands still but for what runs take."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def __call__(self):
        return self.now

    def run(self, name, *seconds):
        turns = iter(seconds)

        def run():
            self.order.append(name)
            self.now += next(turns, seconds[-1])

        return run


def test_runs_take_turns_and_a_disturbance_does_not_decide():
    clock = Clock()
    disturbed = clock.run("a", 0.1, 0.1, 9.0, 9.0, 0.1)  # two slow rounds of nine
    times = measure([disturbed, clock.run("b", 0.2)], clock=clock, seconds=100.0)
    assert times == pytest.approx([0.1, 0.2])
    assert clock.order == ["a", "b"] * (1 + autotune.ROUNDS)


def test_short_runs_are_repeated_hopeless_ones_are_left_and_the_time_is_bounded():
    clock = Clock()
    runs = [clock.run("short", 0.0001), clock.run("hopeless", 0.01)]
    assert measure(runs, clock=clock, seconds=100.0) == pytest.approx([0.0001, 0.01])
    assert clock.order.count("hopeless") == 2
    assert clock.order.count("short") - 1 in (19 * autotune.ROUNDS, 20 * autotune.ROUNDS)  # as 2 ms round
    clock = Clock()
    measure([clock.run("long", 5.0)], clock=clock, seconds=1.0)
    assert clock.order.count("long") == 1 + autotune.LEAST_ROUNDS


def test_candidates_that_come_too_late_are_named_and_not_built(doubled, rivals):
    rivals(Native("native"))
    record = doubled.prepare((X,), None, {})
    clock = Clock()
    tick = iter(range(10_000))
    found = autotune.tune(doubled, record, {}, seconds=2.5, clock=lambda: float(next(tick)))
    late = [each for each in found.trials if each.reason == "not tried: the time was spent"]
    assert late and found.backend == "xla" and clock.order == []


def test_the_search_leaves_alone_what_the_caller_gave(doubled):
    assert points(doubled, {}) == [{}, {"BM": 4}, {"BM": 8}, {"BM": 12}]
    assert points(doubled, {"BM": 2}) == [{}]


def test_a_search_of_no_keyword_or_without_end_is_an_error():
    def body(x, o, *, BM=8, BN=8):
        o[:] = x[:]

    with pytest.raises(KernelError, match="search names 'BX', which is no keyword"):
        dsl.kernel(grid=1, search={"BX": (1,)})(body)
    with pytest.raises(KernelError, match="takes a tuple of numbers or words"):
        dsl.kernel(grid=1, search={"BM": ()})(body)
    wide = dsl.kernel(grid=1, search={"BM": tuple(range(1, 8)), "BN": tuple(range(1, 8))})(body)
    with pytest.raises(KernelError, match="49 points, and 32 is the limit"):
        points(wide, {})


def test_tuning_inside_a_trace_or_without_arrays_is_an_error(doubled):
    with pytest.raises(KernelError, match=r"call \.tune\(\.\.\.\) outside of jit"):
        jax.jit(lambda x: (doubled.tune(x), x)[1])(X)
    with pytest.raises(KernelError, match="tuning measures arrays"):
        doubled.tune(jax.ShapeDtypeStruct((3, 3), jnp.float32))


def test_the_environment_tunes_first_calls_outside_of_a_trace_only(doubled, rivals, monkeypatch):
    rivals(Native("native"))
    seen = []
    with PROFILE.watch(seen.append):
        doubled(X)
        monkeypatch.setenv("TARSIA_DSL_AUTOTUNE", "1")
        jax.jit(doubled)(X)
        doubled(X, backend="xla")
        assert not any(isinstance(event, Tuned) for event in seen)
        doubled(X)
        doubled(X)
    (event,) = [event for event in seen if isinstance(event, Tuned)]
    assert (event.kernel, event.platform) == ("doubled", "cpu") and event.candidates >= 2


def test_what_wins_is_kept_as_json_that_names_the_device(doubled, rivals, own_cache):
    rivals(Native("native"))
    record = doubled.tune(X)
    told = json.loads((own_cache / record.key / tuned.FILE).read_text())
    assert told["device"].startswith(record.device) and "jax 0." in told["device"]
    assert len(told["trials"]) == len(record.trials)
