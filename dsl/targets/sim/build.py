"""From generated source to a shared library that executes it: the shim, the compiler, the files."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from dsl.ir.ops import Kernel
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.emit import Program

HERE = Path(__file__).resolve().parent
SHIMS = ("simulator.h", "cuda.h", "metal/metal_stdlib")
COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-fwrapv", "-fno-threadsafe-statics")
_POOL = re.compile(r"^(\s*)(?:__shared__|threadgroup) float pool\[(\d+)\];$", re.MULTILINE)


class BuildError(Exception):
    """The compiler refused the source; the message holds its first error and the line it is about."""


def compiler() -> str | None:
    """Path of the C++ compiler: $CXX, or the first found of g++, clang++ and c++."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return next((found for name in names if (found := shutil.which(name))), None)


def folder() -> Path:
    """Where built libraries are kept: $TARSIA_DSL_SIM_CACHE, or in the user's cache."""
    given = os.environ.get("TARSIA_DSL_SIM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "tarsia" / "dsl" / "sim"


def library(kernel: Kernel, dialect: Dialect, program: Program) -> Path:
    """The built library of a program, from the cache when the same text was built before.

    Raises BuildError. Processes may call it at once: files appear under their names when complete.
    """
    found = compiler()
    if found is None:
        raise BuildError("there is no C++ compiler")
    text = harness(kernel, dialect, program)
    identity = "\n".join([found, *FLAGS, text, _shims()])
    path = folder() / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.so"
    if not path.exists():
        _compile(found, text, path)
    return path


@lru_cache(maxsize=1)
def _shims() -> str:
    return "\n".join((HERE / name).read_text() for name in SHIMS)


def harness(kernel: Kernel, dialect: Dialect, program: Program) -> str:
    """The C++ text around the source: its only change is that shared memory watches its users."""
    source = _POOL.sub(r"\1static sim::Shared<float, \2> pool;", program.source)
    include = '#include "cuda.h"\n' if dialect.name == "cuda" else ""
    casts = ", ".join(f"({dialect.types[ref.dtype]}*)a[{number}]" for number, ref in enumerate(kernel.refs))
    place = "" if dialect.name == "cuda" else ", dsl_program, sim::current & 31, sim::current >> 5"
    return (
        f"{include}{source}\n"
        f"static void dsl_call(void** a) {{ {program.entry}({casts}{place}); }}\n"
        'extern "C" int dsl_run(sim::Buffer* buffers, int count, int blocks, int threads, unsigned order,\n'
        "                       char* told, int size) {\n"
        "  return sim::run(buffers, count, blocks, threads, order, told, size, dsl_call, dsl_enter);\n}\n"
    )


def _compile(found: str, text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        source, built = Path(scratch) / "program.cpp", Path(scratch) / "program.so"
        source.write_text(text)
        include = (f"-I{HERE}", f"-I{HERE / 'metal'}")
        done = subprocess.run(
            [found, *FLAGS, *include, "-o", str(built), str(source)], capture_output=True, text=True
        )
        if done.returncode:
            raise BuildError(_first_error(done.stderr, text))
        built.replace(path)


def _first_error(told: str, text: str) -> str:
    for line in told.splitlines():
        match = re.match(r".*program\.cpp:(\d+):\d+: (?:fatal )?error: (.*)", line)
        if match:
            return f"{match[2]} in: {text.splitlines()[int(match[1]) - 1].strip()}"
    return told.strip().splitlines()[-1] if told.strip() else "the compiler failed without a message"
