"""CUDA C++ to machine code by NVRTC, through ctypes; needs no driver and no GPU."""

import ctypes
import importlib.util
import re
from ctypes.util import find_library
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PIP = "pip install nvidia-cuda-nvrtc-cu12"
MISSING = f"NVRTC, NVIDIA's compiler, is not installed: {PIP} (it comes with jax[cuda12])"
FLAGS = ("--ptxas-options=-v", "--std=c++17")
_PACKAGES = ("nvidia.cuda_nvrtc", "nvidia.cu13")


class CompileError(Exception):
    """NVRTC is missing or refused the source; one line with its first error and the line of source."""


@dataclass(frozen=True)
class Binary:
    """A compiled kernel.

    Attributes:
        ptx: text for the driver or ptxas.
        cubin: machine code for `arch`, as "sm_90".
        registers: of a thread.
        spilled: bytes of registers that a thread keeps in memory.
        shared: bytes of shared memory of a block.
    """

    arch: str
    ptx: str
    cubin: bytes
    registers: int
    spilled: int
    shared: int
    log: str


def installed() -> bool:
    """True when the compiler's library is found; loads nothing."""
    return _location() is not None


def version() -> str:
    """Such as "12.9". Raises CompileError."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compile_source(source: str, arch: str) -> Binary:
    """Compiles one kernel for `arch`. Raises CompileError."""
    nvrtc = _library()
    handle = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(handle), source.encode(), b"kernel.cu", 0, None, None)
    try:
        flags = [f"--gpu-architecture={arch}", *FLAGS]
        words = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        status = nvrtc.nvrtcCompileProgram(handle, len(flags), words)
        log = _read(nvrtc, handle, "ProgramLog").decode(errors="replace")
        if status:
            raise CompileError(_first_error(log, source, status))
        ptx = _read(nvrtc, handle, "PTX").rstrip(b"\0").decode()
        return described(arch, ptx, _read(nvrtc, handle, "CUBIN"), log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))


def described(arch: str, ptx: str, cubin: bytes, log: str) -> Binary:
    """A compiled kernel with what the compiler's log says of it."""

    def number(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found[1]) if found else 0

    spilled = number(r"(\d+) bytes spill stores")
    return Binary(
        arch, ptx, cubin, number(r"Used (\d+) registers"), spilled, number(r"(\d+) bytes smem"), log
    )


def _first_error(log: str, source: str, status: int) -> str:
    found = re.search(r"kernel\.cu\((\d+)\): (?:catastrophic )?error: (.*)", log)
    if found is None:
        return (log.strip() or f"NVRTC failed with status {status}").splitlines()[0]
    return f"{found[2].strip()} in: {source.splitlines()[int(found[1]) - 1].strip()}"


def _read(nvrtc: Any, handle: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(handle, ctypes.byref(size))
    data = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(handle, data)
    return data.raw.rstrip(b"\0") if what == "ProgramLog" else data.raw


@lru_cache(maxsize=1)
def _location() -> str | None:
    """Path of libnvrtc in NVIDIA's wheels, or the name of the system's."""
    for package in _PACKAGES:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found = sorted((Path(folder) / "lib").glob("libnvrtc.so.*"))
            if found:
                return str(found[-1])
    return find_library("nvrtc")


@lru_cache(maxsize=1)
def _library() -> Any:
    location = _location()
    if location is None:
        raise CompileError(MISSING)
    # The compiler opens its builtins by bare name, so they must be in the process before it.
    for builtins in sorted(Path(location).parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    try:
        return ctypes.CDLL(location)
    except OSError as reason:
        raise CompileError(f"NVRTC cannot be loaded: {reason}") from None
