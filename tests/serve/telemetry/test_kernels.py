"""The DSL's events on the metrics page: through the real application, with real kernels."""

import re

import jax
import jax.numpy as jnp
import pytest

import dsl
from dsl.kernels.softmax import softmax
from dsl.runtime.profile import Chosen, Profile, Skipped, Tuned
from dsl.targets.sim.build import compiler
from serve.telemetry.kernels import KernelMetrics
from tests.serve.test_app import client_of


def scraped(client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith("tarsia_dsl_")]
    return {name: float(value) for name, _, value in found}


@pytest.mark.skipif(compiler() is None, reason="the cpu backend needs a C++ compiler")
def test_traces_refusals_and_compilations_are_counted(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TARSIA_DSL_BACKEND", raising=False)
    client = client_of()
    before = scraped(client)
    x = jnp.ones((3, 23))
    jax.jit(softmax)(x)
    with pytest.raises(dsl.BackendError):
        softmax(x, backend="cuda")
    softmax(x, backend="cpu")
    after = scraped(client)
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    grown = {name: count for name, count in grown.items() if count}
    assert grown.pop('tarsia_dsl_compile_seconds_sum{backend="cpu"}') > 0
    assert grown == {
        'tarsia_dsl_kernels_total{backend="xla"}': 1,
        'tarsia_dsl_kernels_total{backend="cpu"}': 1,
        'tarsia_dsl_skipped_total{backend="cuda",reason_kind="platform"}': 1,
        'tarsia_dsl_cache_total{result="miss"}': 1,
        'tarsia_dsl_compile_seconds_count{backend="cpu"}': 1,
    }


def test_labels_come_from_fixed_lists():
    profile = Profile()
    for n in range(50):
        skipped = (Skipped(f"experiment{n}", f"reason {n}"),)
        profile.record(Chosen(f"kernel{n}", "cpu", f"experiment{n}", skipped))
        profile.record(Tuned(f"kernel{n}", "cpu", f"experiment{n}", 1.0, 3, 1.0))
    samples = [sample for metric in KernelMetrics(profile).collect() for sample in metric.samples]
    assert len(samples) == 5 and {value for each in samples for value in each.labels.values()} == {
        *("other", "unsupported", "hit", "miss")
    }
    assert all(re.fullmatch(r"tarsia_dsl_[a-z_]+_total", each.name) for each in samples)
