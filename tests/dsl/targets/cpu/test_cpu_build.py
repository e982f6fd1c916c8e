"""Around the compiler: none, a broken emitter, a damaged or contested cache, a killed compile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl.lower.host as host
from dsl import BackendError
from dsl.kernels.softmax import softmax
from dsl.lower.host import names
from dsl.targets.cpu import build
from dsl.targets.cpu.target import CpuTarget

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 7)), jnp.float32)
CHILD = """
import numpy as np, jax.numpy as jnp
from dsl.kernels.softmax import softmax
x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 7)), jnp.float32)
print(float(abs(softmax(x, backend="cpu") - softmax(x, backend="xla")).max()) < 1e-6)
"""


def child(folder: Path, **env: str) -> subprocess.Popen:
    given = {**os.environ, "TARSIA_DSL_CACHE": str(folder), "JAX_PLATFORMS": "cpu", **env}
    return subprocess.Popen([sys.executable, "-c", CHILD], env=given, stdout=subprocess.PIPE, text=True)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def test_two_processes_at_once_share_one_entry(tmp_path):
    both = [child(tmp_path), child(tmp_path)]
    assert [each.communicate(timeout=100)[0].strip() for each in both] == ["True", "True"]
    assert len(entries(tmp_path)) == 1
    assert list(tmp_path.glob(".new-*")) == []


def test_a_compile_that_is_killed_leaves_nothing_that_misleads(tmp_path):
    slow = tmp_path / "slow-c++"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in *-shared*) echo > "$TARSIA_DSL_CACHE/begun"; exec sleep 60;; esac\n'
        'exec c++ "$@"\n'
    )
    slow.chmod(0o700)
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    running = child(folder, CXX=str(slow))
    deadline = time.monotonic() + 60
    while not (folder / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (folder / "begun").unlink()
    assert entries(folder) == []
    assert child(folder).communicate(timeout=100)[0].strip() == "True"


def test_a_damaged_entry_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path))
    kernel = softmax.ir(X, target="cpu")
    assert CpuTarget().refuses(kernel) is None
    (entry,) = entries(tmp_path)
    code = entry / "kernel.so"
    broken = code.read_bytes()[:100]
    code.unlink()  # not in place: this process has the file mapped
    code.write_bytes(broken)
    assert CpuTarget().refuses(kernel) is None
    assert len((entry / "kernel.so").read_bytes()) > 1000


def test_without_a_compiler_the_reason_is_said_and_xla_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    odd = jnp.ones((3, 13))
    with pytest.raises(BackendError, match=r"no C\+\+ compiler .* install g\+\+ or clang"):
        softmax(odd, backend="cpu")
    np.testing.assert_allclose(softmax(odd), jax.nn.softmax(odd), rtol=1e-6)


def test_a_compiler_that_fails_is_a_reason_with_its_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "emit", lambda kernel: "this is not C++")
    reason = CpuTarget().refuses(softmax.ir(X, target="cpu"))
    assert reason is not None and "refused the source of softmax" in reason and "error" in reason


def test_a_miscompiled_kernel_fails_its_check_and_stays_disabled(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path))
    kernel = softmax.ir(X, target="cpu")
    with monkeypatch.context() as broken:
        broken.setitem(names._BINARY, "sub", "({1} - {0})")
        reason = CpuTarget().refuses(kernel)
    assert reason is not None and "self-check failed" in reason and "of o are wrong" in reason
    assert CpuTarget().refuses(kernel) == reason  # the verdict is on disk


def test_a_change_of_the_emitter_makes_kernels_anew(tmp_path, monkeypatch):
    changed = tmp_path / "host"
    shutil.copytree(Path(host.__file__).parent, changed)
    kernel, used = softmax.ir(X, target="cpu"), build.compiler()
    before = build.key(kernel, used)
    with (changed / "running.py").open("a") as emitter:
        emitter.write("# another thought\n")
    monkeypatch.setattr(host, "__file__", str(changed / "__init__.py"))
    build._emitter.cache_clear()
    assert build.key(kernel, used) != before
    build._emitter.cache_clear()
