"""From C++ to a loaded library: finding the compiler, compiling, and remembering on disk."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from jaxlib import version as jaxlib_version

import dsl.lower.host as host
from dsl.ir.ops import Kernel
from dsl.lower.host.emit import emit
from dsl.runtime.cache import default_folder, key_of, opened
from dsl.runtime.profile import PROFILE, CheckFailed, Compiled, Kind

FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-w"),
    *("-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fwrapv"),
)
"""Not -ffast-math: NaN and infinities keep their meaning."""
TIMEOUT = 120.0
_HEADERS = (
    Path(host.__file__).with_name("prelude.h"),
    Path(host.__file__).with_name("integer_dots.h"),
    Path(host.__file__).with_name("turned_dots.h"),
    Path(__file__).with_name("handler.h"),
    Path(__file__).with_name("seats.h"),
)
Check = Callable[[Kernel, ctypes.CDLL], str | None]
_log = logging.getLogger("tarsia.dsl")


class BuildProblem(Exception):
    """Why there is no library, in one line that `explain` shows, and of which kind the reason is."""

    def __init__(self, reason: str, kind: Kind = "compiler") -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, its flags for this processor, and a digest of its version and the processor's ISA."""

    path: str
    flags: tuple[str, ...]
    identity: str


def compiler() -> Compiler:
    """`$CXX`, or the first of c++, g++ and clang++. Raises BuildProblem when there is none that works."""
    return _compiler(os.environ.get("CXX", ""), os.environ.get("PATH", ""))


@functools.cache
def _compiler(chosen: str, path: str) -> Compiler:
    names = [chosen] if chosen else ["c++", "g++", "clang++"]
    found = next((place for name in names if (place := shutil.which(name, path=path))), None)
    if found is None:
        raise BuildProblem(
            f"no C++ compiler ({', '.join(names)}) on PATH; install g++ or clang++, or set CXX", "missing"
        )
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    asked = [found, native, "-dM", "-E", "-x", "c++", os.devnull]
    told = _run(asked, f"{found} does not work", 20.0)
    return Compiler(found, (*FLAGS, native), hashlib.sha256(told.encode()).hexdigest())


def _run(command: list[str], what: str, timeout: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildProblem(f"{what}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildProblem(f"{what}: {lines[0] if lines else f'exit status {done.returncode}'}")
    return done.stdout


@functools.cache
def _emitter() -> str:
    """A digest of all that turns a kernel into a library: a change of it makes every kernel anew."""
    emitters = sorted(Path(host.__file__).parent.glob("*.py"))
    return key_of(*(path.read_text() for path in (*emitters, *_HEADERS)))


def source(kernel: Kernel) -> str:
    """The whole translation unit, but for the headers it includes."""
    return f'#include "prelude.h"\n\n{emit(kernel)}\n\n#include "handler.h"\n'


def key(kernel: Kernel, used: Compiler) -> str:
    """Names the library of a kernel: it changes with anything that may change the machine code."""
    parts = (
        str(kernel),
        "cpu",
        used.identity,
        *used.flags,
        jaxlib_version.__version__,
        _emitter(),
    )
    return key_of(*parts)


def compile_source(text: str, name: str, used: Compiler, folder: Path) -> Path:
    """Compiles into `folder`. Raises BuildProblem with the compiler's first error."""
    written, library = folder / "kernel.cc", folder / "kernel.so"
    written.write_text(text)
    include = [f"-I{path.parent}" for path in _HEADERS] + [f"-I{jax.ffi.include_dir()}"]
    command = [used.path, *used.flags, *include, str(written), "-o", str(library)]
    started = time.perf_counter()
    _log.info("compiling kernel %s for this processor (once; kept in %s)", name, default_folder())
    _run(command, f"{Path(used.path).name} refused the source of {name}", TIMEOUT)
    _log.info("compiled kernel %s in %.1f s", name, time.perf_counter() - started)
    return library


def _kept(entry: Path | None) -> tuple[ctypes.CDLL, str] | None:
    """The library and the verdict of an entry; one that cannot be loaded is removed."""
    if entry is None:
        return None
    try:
        return ctypes.CDLL(str(entry / "kernel.so")), (entry / "verdict").read_text()
    except OSError:
        shutil.rmtree(entry, ignore_errors=True)
        return None


def library(kernel: Kernel, check: Check) -> tuple[ctypes.CDLL, str]:
    """The loaded library of a kernel and its key; compiled and checked unless the cache has it.

    Raises BuildProblem when it cannot be compiled or fails its check; a failed check is remembered too.
    """
    used = compiler()
    named = key(kernel, used)
    started = time.perf_counter()
    cache = opened(default_folder())
    kept = _kept(cache.load(named) if cache else None)
    if kept is not None:
        PROFILE.record(Compiled(kernel.name, "cpu", time.perf_counter() - started, "hit"))
        if kept[1]:
            raise BuildProblem(kept[1], "self-check")
        return kept[0], named
    with tempfile.TemporaryDirectory(prefix="tarsia-dsl-") as folder:
        text = source(kernel)
        made = compile_source(text, kernel.name, used, Path(folder))
        loaded = ctypes.CDLL(str(made))
        verdict = check(kernel, loaded) or ""
        if cache is not None:
            files = {"kernel.so": made.read_bytes(), "kernel.cc": text.encode(), "verdict": verdict.encode()}
            cache.keep(named, files)
    PROFILE.record(Compiled(kernel.name, "cpu", time.perf_counter() - started, "miss"))
    if verdict:
        PROFILE.record(CheckFailed(kernel.name, "cpu", verdict))
        raise BuildProblem(verdict, "self-check")
    return loaded, named
