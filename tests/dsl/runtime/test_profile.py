"""Events: bounded, counted, from any thread; and those that real calls cause."""

import threading

import jax
import jax.numpy as jnp
import pytest

import dsl
from dsl.kernels.softmax import softmax
from dsl.runtime import select
from dsl.runtime.profile import PROFILE, CheckFailed, Chosen, Compiled, Profile, Refusal, Skipped
from dsl.targets.cpu.target import CpuTarget


def test_only_the_last_events_are_kept_and_all_are_counted():
    profile = Profile(kept=3)
    for n in range(5):
        profile.record(Chosen(f"k{n}", "cpu", "xla", (Skipped("cuda", "no GPU", "missing"),)))
    profile.record(Chosen("k", "cpu", None, (Skipped("cuda", "no GPU", "missing"),)))
    profile.record(Compiled("k", "cpu", 1.5, "miss"))
    profile.record(Compiled("k", "cpu", 0.5, "hit"))
    assert [type(event).__name__ for event in profile.recent()] == ["Chosen", "Compiled", "Compiled"]
    totals = profile.totals()
    assert totals.chosen == {"xla": 5} and totals.skipped == {("cuda", "missing"): 6}
    assert totals.compilations == {("cpu", "miss"): 1, ("cpu", "hit"): 1}
    assert totals.compile_seconds == {"cpu": 1.5}


def test_threads_lose_no_event():
    profile, seen = Profile(), []
    with profile.watch(seen.append):
        work = [
            threading.Thread(target=lambda: [profile.record(CheckFailed("k", "cpu", "")) for _ in range(500)])
            for _ in range(8)
        ]
        for each in work:
            each.start()
        for each in work:
            each.join()
    profile.record(CheckFailed("k", "cpu", ""))
    assert len(seen) == 4000 and profile.totals().failed == {"cpu": 4001}


def test_a_call_is_an_event_at_each_trace_and_not_at_each_run():
    seen = []
    with PROFILE.watch(seen.append):
        run = jax.jit(softmax)
        for _ in range(3):
            run(jnp.ones((3, 17)))
    assert seen == [Chosen("softmax", "cpu", "xla")]


def test_a_forced_backend_that_refuses_is_counted_and_logged_once(caplog):
    seen = []
    with PROFILE.watch(seen.append), caplog.at_level("INFO", "tarsia.dsl"):
        for _ in range(2):
            with pytest.raises(dsl.BackendError):
                softmax(jnp.ones((2, 3)), backend="cuda")
    assert [event.skipped[0].kind for event in seen] == ["platform", "platform"]
    assert len([line for line in caplog.messages if "does not run on cuda" in line]) <= 1
    assert ("cuda", "it runs on gpu, not on cpu") in select._logged


def test_a_compilation_is_a_miss_and_then_a_hit(own_cache):
    seen = []
    with PROFILE.watch(seen.append):
        for _ in range(2):
            assert CpuTarget().refuses(softmax.ir(jnp.ones((3, 19)), target="cpu")) is None
    assert [(event.backend, event.result) for event in seen] == [("cpu", "miss"), ("cpu", "hit")]
    assert seen[0].seconds > 0


def test_reasons_are_plain_text_with_a_kind():
    reason = Refusal("no compiler", "missing")
    assert reason == "no compiler" and reason.kind == "missing" and f"{reason}" == "no compiler"
