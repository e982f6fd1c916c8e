"""CUDA binaries on disk: compiled once for all processes, described without compiling again."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from dsl.kernels.softmax import softmax
from dsl.runtime.profile import PROFILE, Compiled
from dsl.targets.cuda import library, nvrtc

pytestmark = pytest.mark.skipif(not nvrtc.installed(), reason=nvrtc.MISSING)
CHILD = """
import jax.numpy as jnp
from dsl.kernels.softmax import softmax
from dsl.runtime.profile import PROFILE
from dsl.targets.cuda.library import compiled
binary = compiled(softmax.ir(jnp.ones((5, 7))), "sm_80")[1]
print([event.result for event in PROFILE.recent()], binary.registers, len(binary.cubin))
"""


def child(folder):
    env = {**os.environ, "TARSIA_DSL_CACHE": str(folder), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split("]")


def test_a_second_process_finds_the_binary_and_what_the_compiler_said(tmp_path):
    first, second = child(tmp_path), child(tmp_path)
    assert (first[0], second[0]) == ("['miss'", "['hit'")
    assert first[1] == second[1]
    (entry,) = tmp_path.iterdir()
    assert "registers" in (entry / "compile.log").read_text()
    assert "softmax_kernel" in (entry / "kernel.cu").read_text()
    (entry / "kernel.cubin").write_bytes(b"\x7fELF")  # as a full disk leaves it
    assert child(tmp_path) == first


def test_another_architecture_or_source_is_another_entry(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path))
    library.compiled.cache_clear()
    seen = []
    with PROFILE.watch(seen.append):
        for columns, arch in ((7, "sm_80"), (7, "sm_90"), (9, "sm_80")):
            library.compiled(softmax.ir(jnp.ones((5, columns))), arch)
    assert [event.result for event in seen if isinstance(event, Compiled)] == ["miss"] * 3
    assert len(list(tmp_path.iterdir())) == 3


def test_verdicts_are_kept_and_empty_ones_are_told_from_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path))
    assert library.kept_verdict("k") is None
    library.keep_verdict("k", "")
    library.keep_verdict("j", "its self-check failed")
    assert (library.kept_verdict("k"), library.kept_verdict("j")) == ("", "its self-check failed")
