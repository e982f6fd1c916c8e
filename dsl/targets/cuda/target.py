"""The `cuda` target: emitted CUDA C++, compiled by NVRTC, launched inside `jit`.

By the launcher of JAX's plugin (`launch.py`) where it is there, takes the PTX and passes the self-check;
else by our own (`driver.py`). TARSIA_DSL_CUDA_LAUNCHER ("plugin" or "driver") allows one of them only.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
from jaxlib import version as jaxlib_version

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.lower.c.dialects import CUDA
from dsl.lower.c.emit import Program, Unsupported, emit
from dsl.runtime.profile import PROFILE, CheckFailed, Refusal
from dsl.runtime.selfcheck import on_device
from dsl.runtime.targets import Resources, resources_of
from dsl.targets.cuda import driver, launch, library, nvrtc
from dsl.targets.cuda.library import compiled
from dsl.targets.cuda.nvrtc import Binary, CompileError

SHOWN = ("sm_80", "sm_90")
"""Architectures that are described where there is no GPU: A100 and H100."""
LAUNCHERS = ("plugin", "driver")
NO_GPU = Refusal("there is no NVIDIA GPU that JAX can use on this machine", "missing")
Function = Callable[..., tuple[jax.Array, ...]]


@dataclass(frozen=True)
class _Usable:
    """The launcher whose self-check passed and its call, or else why there is none."""

    launcher: str
    call: Function | None
    reason: Refusal | None


class CudaTarget:
    """Kernels on NVIDIA GPUs. Threads may share it."""

    name = "cuda"
    platforms: tuple[str, ...] = ("gpu",)

    def refuses(self, kernel: Kernel) -> str | None:
        arch = _arch()
        if arch is None:
            return NO_GPU
        if not nvrtc.installed():
            return Refusal(nvrtc.MISSING, "missing")
        return _usable(kernel, arch, launchers()).reason

    def build(self, kernel: Kernel) -> Function:
        arch = _arch()
        if arch is None:
            raise BackendError(f"cuda: {NO_GPU}")
        usable = _usable(kernel, arch, launchers())
        if usable.call is None:
            raise BackendError(f"cuda cannot take {kernel.name}: {usable.reason}")
        return usable.call

    def source(self, kernel: Kernel) -> str:
        """CUDA C++, on any machine."""
        try:
            return emit(kernel, CUDA).source
        except Unsupported as reason:
            raise BackendError(f"cuda cannot take {kernel.name}: {reason}") from None

    def resources(self, kernel: Kernel) -> tuple[Resources, ...]:
        """For this machine's GPU, or for `SHOWN`; () without NVRTC or when the kernel is refused."""
        arch = _arch()
        if not nvrtc.installed():
            return ()
        try:
            made = [compiled(kernel, each) for each in ((arch,) if arch else SHOWN)]
        except (Unsupported, CompileError):
            return ()
        return tuple(resources_of(p, each.arch, each.registers, each.spilled) for p, each in made)


def launchers() -> tuple[str, ...]:
    """The launchers to try, best first. Raises BackendError for an unknown one in the environment."""
    forced = os.environ.get("TARSIA_DSL_CUDA_LAUNCHER")
    if forced and forced not in LAUNCHERS:
        raise BackendError(f"TARSIA_DSL_CUDA_LAUNCHER is {forced!r}; it may be {' or '.join(LAUNCHERS)}")
    if forced:
        return (forced,)
    return LAUNCHERS if launch.registered() else ("driver",)


@lru_cache(maxsize=512)
def _usable(kernel: Kernel, arch: str, allowed: tuple[str, ...]) -> _Usable:
    try:
        program, binary = compiled(kernel, arch)
    except Unsupported as reason:
        return _Usable("", None, Refusal(str(reason), "unsupported"))
    except CompileError as reason:
        return _Usable("", None, Refusal(f"NVRTC refuses the generated source: {reason}", "compiler"))
    tried = []
    for name in allowed:
        try:
            call = caller(kernel, program, binary, name)
            verdict = _verdict(kernel, program, arch, name, call)
        except Exception as error:  # XLA and the driver raise what they like: it is the reason
            tried.append(Refusal(f"by the {name} launcher: {_first_line(error)}", "compiler"))
            continue
        if not verdict:
            return _Usable(name, call, None)
        tried.append(Refusal(f"by the {name} launcher: {verdict}", "self-check"))
    kinds = [each.kind for each in tried]
    kind = "self-check" if "self-check" in kinds else kinds[0]
    return _Usable("", None, Refusal("; ".join(tried), kind))


def caller(kernel: Kernel, program: Program, binary: Binary, launcher: str) -> Function:
    """A traceable function that launches by one of `LAUNCHERS`. Raises BackendError."""
    described = launch.launch_of(kernel, program, binary)
    if launcher == "driver":
        return driver.caller(kernel, replace(described, cubin=binary.cubin))
    if launch.ptx_is_too_new():
        if jaxlib_version.__version_info__ < launch.TAKES_CUBIN:
            raise BackendError(
                f"NVRTC {nvrtc.version()} is newer than XLA's ptxas, which refuses its PTX: "
                "install nvidia-cuda-nvcc of the same version"
            )
        described = replace(described, cubin=binary.cubin)
    return launch.caller(kernel, described)


def _verdict(kernel: Kernel, program: Program, arch: str, launcher: str, call: Function) -> str:
    device: Any = jax.devices("cuda")[0]
    key = library.verdict_key(program, arch, launcher, device)
    kept = library.kept_verdict(key)
    if kept is not None:
        return kept
    found = on_device(kernel, call, device) or ""
    library.keep_verdict(key, found)
    if found:
        PROFILE.record(CheckFailed(kernel.name, "cuda", found))
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


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
