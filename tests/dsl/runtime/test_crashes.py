"""The cache under what happens to machines: kills, full disks, two writers, folders that cannot be used."""

import random
import resource
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsl.kernels.softmax import softmax
from dsl.runtime import targets
from dsl.runtime.cache import Cache
from dsl.runtime.profile import PROFILE, CheckFailed
from dsl.targets.cpu.target import CpuTarget
from dsl.targets.sim.build import compiler

WRITER = """
import sys
from pathlib import Path
from dsl.runtime.cache import Cache
cache, word = Cache(Path(sys.argv[1])), sys.argv[2].encode()
for n in range(100_000):
    files = {"code": word * 50_000, "log": b"%d" % n}
    cache.store(f"entry{n % 40}", files)
    cache.replace("tuned", files)
    print(n, flush=True)
"""


def writer(folder, word):
    command = [sys.executable, "-c", WRITER, str(folder), word]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def whole(folder):
    """Every entry that is given out is one writer's, unmixed; the number of entries."""
    cache, count = Cache(folder), 0
    for path in sorted(folder.iterdir()):
        entry = None if path.name.startswith(".") else cache.load(path.name)
        if entry is not None:
            data = (entry / "code").read_bytes()
            assert len(data) == 50_000 and len(set(data)) == 1
            count += 1
    return count


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_writers_that_are_killed_leave_whole_entries(own_cache, rounds):
    rng = random.Random(rounds)
    for _ in range(rounds):
        both = [writer(own_cache, word) for word in "ab"]
        for each in both:
            each.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.15))
        for each in both:
            each.send_signal(signal.SIGKILL)
            each.wait()
            each.stdout.close()
        assert whole(own_cache) >= 1
    cache = Cache(own_cache)
    cache.replace("tuned", {"code": b"c" * 50_000})
    assert (cache.load("tuned") / "code").read_bytes() == b"c" * 50_000


@pytest.fixture
def full_disk():
    """Files of this process may have 4 KiB: a write beyond it fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_an_error_of_store_a_warning_of_keep_and_leaves_nothing(own_cache, full_disk, caplog):
    cache, files = Cache(own_cache), {"log": b"short", "code": bytes(9000)}
    with pytest.raises(OSError, match="File too large"):
        cache.store("k", files)
    with pytest.raises(OSError, match="File too large"):
        cache.replace("k", files)
    cache.keep("k", files)
    assert "not kept" in caplog.text
    assert list(own_cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_said_once_and_kernels_run(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path / "file" / "cache"))
    for columns in (31, 37):
        x = jnp.ones((3, columns))
        np.testing.assert_allclose(
            softmax(x, backend="cpu" if compiler() else "xla"), jax.nn.softmax(x), rtol=1e-6
        )
    assert softmax.explain(x).backend == "xla"
    assert sum("compiled kernels are not kept" in line for line in caplog.messages) <= 1


@pytest.fixture
def sign_flipping_compiler(tmp_path, monkeypatch):
    """A real compiler that flips the sign of what the kernel exponentiates."""
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    wrapper = tmp_path / "miscompiling-c++"
    wrapper.write_text(
        '#!/bin/sh\nfor word; do case "$word" in *kernel.cc)\n'
        '  sed "s/exp_f32(/exp_f32(-/" "$word" > "$word.new" && mv "$word.new" "$word";;\nesac; done\n'
        f'exec {compiler()} "$@"\n'
    )
    wrapper.chmod(0o700)
    monkeypatch.setenv("CXX", str(wrapper))
    monkeypatch.setitem(targets.ORDER, "cpu", ("cpu",))


def test_a_miscompiled_backend_is_off_and_the_call_falls_back(sign_flipping_compiler, own_cache, caplog):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 41)), jnp.float32)
    seen = []
    with PROFILE.watch(seen.append):
        found = jax.jit(softmax)(x)
    np.testing.assert_allclose(found, jax.nn.softmax(x), rtol=1e-5)
    told = softmax.explain(x)
    assert told.backend == "xla" and told.skipped[0].kind == "self-check"
    assert "not on cpu: its self-check failed" in str(told)
    assert [type(event) for event in seen].count(CheckFailed) == 1
    assert sum("does not run on cpu: its self-check failed" in line for line in caplog.messages) == 1
    assert "self-check failed" in CpuTarget().refuses(softmax.ir(x, target="cpu"))  # of the verdict on disk


def test_tuning_never_picks_a_miscompiled_backend(sign_flipping_compiler):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 43)), jnp.float32)
    record = softmax.tune(x, seconds=5.0)
    assert record.backend == "xla"
    assert any(each.backend == "cpu" and "self-check failed" in each.reason for each in record.trials)
