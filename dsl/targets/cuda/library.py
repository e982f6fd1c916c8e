"""Compiled kernels and their verdicts, kept on disk for every process of this user.

An entry of the cache holds the source, the PTX, the machine code and the compiler's log (registers and
spills). Its key is the source itself, which the IR, the keywords and the emitter's version made, with
the compiler's version and flags and the architecture. A verdict depends on the device too, so it is an
entry of its own.
"""

import dataclasses
import time
from functools import lru_cache
from typing import Any

import jax
from jaxlib import version as jaxlib_version

from dsl.ir.ops import Kernel
from dsl.lower.c.dialects import CUDA, Dialect
from dsl.lower.c.emit import Program, emit
from dsl.runtime.cache import default_folder, key_of, opened
from dsl.runtime.profile import PROFILE, Compiled
from dsl.targets.cuda import nvrtc
from dsl.targets.cuda.nvrtc import Binary

MATRIX_CAPABILITY = 80
"""Since sm_80, mma takes 16 x 8 x 16 of f16 and of bf16."""


@lru_cache(maxsize=512)
def compiled(kernel: Kernel, arch: str) -> tuple[Program, Binary]:
    """Source and machine code for an architecture such as "sm_90". Raises Unsupported, CompileError."""
    program = emit(kernel, dialect_for(arch))
    started = time.perf_counter()
    key = _key(program, arch)
    binary = _kept(key, arch)
    found = binary is not None
    if binary is None:
        binary = nvrtc.compile_source(program.source, arch)
        _keep(key, program, binary)
    spent = time.perf_counter() - started
    PROFILE.record(Compiled(kernel.name, "cuda", spent, "hit" if found else "miss"))
    return program, binary


def dialect_for(arch: str) -> Dialect:
    """CUDA, without the matrix unit where it has other shapes than those emitted."""
    number = int("".join(letter for letter in arch if letter.isdigit()))
    return CUDA if number >= MATRIX_CAPABILITY else dataclasses.replace(CUDA, unit=None)


def _key(program: Program, arch: str) -> str:
    return key_of("cuda", program.source, arch, nvrtc.version(), *nvrtc.FLAGS)


def _kept(key: str, arch: str) -> Binary | None:
    cache = opened(default_folder())
    entry = cache.load(key) if cache else None
    if entry is None:
        return None
    try:
        ptx, cubin = (entry / "kernel.ptx").read_text(), (entry / "kernel.cubin").read_bytes()
        return nvrtc.described(arch, ptx, cubin, (entry / "compile.log").read_text())
    except OSError:  # another process trimmed the cache meanwhile
        return None


def _keep(key: str, program: Program, binary: Binary) -> None:
    cache = opened(default_folder())
    if cache is not None:
        texts = {"kernel.cu": program.source, "kernel.ptx": binary.ptx, "compile.log": binary.log}
        files = {name: text.encode() for name, text in texts.items()}
        cache.keep(key, {**files, "kernel.cubin": binary.cubin})


def verdict_key(program: Program, arch: str, launcher: str, device: Any) -> str:
    """Names the outcome of a self-check: other drivers come with other device kinds or JAX versions."""
    versions = (jax.__version__, jaxlib_version.__version__, str(device.client.platform_version))
    return key_of("cuda verdict", _key(program, arch), launcher, device.device_kind, *versions)


def kept_verdict(key: str) -> str | None:
    """What a self-check found, "" when all was right; None when there has been none."""
    cache = opened(default_folder())
    entry = cache.load(key) if cache else None
    try:
        return (entry / "verdict").read_text() if entry else None
    except OSError:
        return None


def keep_verdict(key: str, verdict: str) -> None:
    cache = opened(default_folder())
    if cache is not None:
        cache.keep(key, {"verdict": verdict.encode()})
