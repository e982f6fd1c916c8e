"""The `cuda` target: emitted CUDA C++, compiled by NVRTC, launched inside `jit` by JAX's own launcher."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import jax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.lower.c.dialects import CUDA, Dialect
from dsl.lower.c.emit import Program, Unsupported, emit
from dsl.targets.cuda import nvrtc
from dsl.targets.cuda.check import self_check
from dsl.targets.cuda.launch import caller, launch_of
from dsl.targets.cuda.nvrtc import Binary, CompileError

MATRIX_CAPABILITY = 80
"""Since sm_80, mma takes 16 x 8 x 16 of f16 and of bf16."""


class CudaTarget:
    """Kernels on NVIDIA GPUs. Threads may share it."""

    name = "cuda"
    platforms: tuple[str, ...] = ("gpu",)

    def refuses(self, kernel: Kernel) -> str | None:
        arch = _arch()
        if arch is None:
            return "there is no NVIDIA GPU that JAX can use on this machine"
        if not nvrtc.installed():
            return nvrtc.MISSING
        return _refusal(kernel, arch)

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        arch = _arch()
        if arch is None:
            raise BackendError("cuda: there is no NVIDIA GPU that JAX can use on this machine")
        program, binary = compiled(kernel, arch)
        return caller(kernel, launch_of(kernel, program, binary))

    def source(self, kernel: Kernel) -> str:
        """CUDA C++, on any machine."""
        try:
            return emit(kernel, CUDA).source
        except Unsupported as reason:
            raise BackendError(f"cuda cannot take {kernel.name}: {reason}") from None


@lru_cache(maxsize=512)
def compiled(kernel: Kernel, arch: str) -> tuple[Program, Binary]:
    """Source and machine code for an architecture such as "sm_90". Raises Unsupported, CompileError."""
    program = emit(kernel, dialect_for(arch))
    return program, nvrtc.compile_source(program.source, arch)


def dialect_for(arch: str) -> Dialect:
    """CUDA, without the matrix unit where it has other shapes than those emitted."""
    number = int("".join(letter for letter in arch if letter.isdigit()))
    return CUDA if number >= MATRIX_CAPABILITY else dataclasses.replace(CUDA, unit=None)


@lru_cache(maxsize=512)
def _refusal(kernel: Kernel, arch: str) -> str | None:
    try:
        compiled(kernel, arch)
    except Unsupported as reason:
        return str(reason)
    except CompileError as reason:
        return f"NVRTC refuses the generated source: {reason}"
    program, binary = compiled(kernel, arch)
    return self_check(kernel, caller(kernel, launch_of(kernel, program, binary)), jax.devices("cuda")[0])


@lru_cache(maxsize=1)
def _arch() -> str | None:
    """The first NVIDIA GPU's architecture, such as "sm_90"."""
    try:
        devices = jax.devices("cuda")
    except RuntimeError:
        return None
    capability = getattr(devices[0], "compute_capability", None)
    return f"sm_{str(capability).replace('.', '')}" if capability else None


TARGET = CudaTarget()
