"""From generated source to a shared library that executes it: the shim, the compiler, the files."""

import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from dsl.ir.ops import AtomicAdd, Kernel, walk
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.emit import Program
from dsl.runtime.cache import Cache, default_folder, key_of

HERE = Path(__file__).resolve().parent
LIBRARY = "program.so"
SHIMS = ("simulator.h", "shared.h", "matrices.h", "cuda.h", "metal/metal_stdlib")
COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-fwrapv", "-fno-threadsafe-statics")
_POOL = re.compile(
    r"^(\s*)(?:__shared__(?: __align__\(16\))?|(?:alignas\(16\) )?threadgroup) float pool\[(\d+)\];$",
    re.MULTILINE,
)
_HALVES = re.compile(r"^(\s*)\S.* halves = .*pool;$", re.MULTILINE)


class BuildError(Exception):
    """The compiler refused the source; the message holds its first error and the line it is about."""


def compiler() -> str | None:
    """Path of the C++ compiler: $CXX, or the first found of g++, clang++ and c++."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return next((found for name in names if (found := shutil.which(name))), None)


def library(kernel: Kernel, dialect: Dialect, program: Program) -> Path:
    """The built library of a program, from the cache when the same text was built before.

    Raises BuildError.
    """
    found = compiler()
    if found is None:
        raise BuildError("there is no C++ compiler")
    text = harness(kernel, dialect, program)
    identity = "\n".join([found, *FLAGS, text, _shims()])
    key = key_of(identity)
    try:
        cache = Cache(default_folder())
        entry = cache.load(key) or cache.store(key, {LIBRARY: _compile(found, text)})
    except OSError as reason:
        raise BuildError(f"the cache of built programs cannot be used: {reason}") from None
    return entry / LIBRARY


@lru_cache(maxsize=1)
def _shims() -> str:
    return "\n".join((HERE / name).read_text() for name in SHIMS)


def harness(kernel: Kernel, dialect: Dialect, program: Program) -> str:
    """The C++ text around the source, in which shared memory and outputs now watch their users."""
    watched = {ref.name for ref in kernel.refs if ref.is_written} - _added_to(kernel)
    source = _POOL.sub(r"\1static sim::Shared<\2> pool;", program.source)
    source = _HALVES.sub(r"\1auto halves = sim::halves(pool);", source)
    body = source.index("{", source.index(f" {program.entry}("))
    source = _watching(source[:body], dialect, program, watched) + source[body:]
    include = '#include "cuda.h"\n' if dialect.name == "cuda" else ""
    position = {ref.name: number for number, ref in enumerate(kernel.refs)}
    casts = ", ".join(
        f"{{({dialect.types[ref.dtype]}*)a[{position[ref.name]}], {position[ref.name]}}}"
        if ref.name in watched
        else f"({dialect.types[ref.dtype]}*)a[{position[ref.name]}]"
        for ref in program.parameters
    )
    place = "" if dialect.name == "cuda" else ", dsl_program, sim::current & 31, sim::current >> 5"
    return (
        f"{include}{source}\n"
        f"static void dsl_call(void** a) {{ {program.entry}({casts}{place}); }}\n"
        'extern "C" void dsl_choose(int number) { sim::mutant = number; }\n'
        'extern "C" int dsl_run(sim::Buffer* buffers, int count, int blocks, int threads, unsigned order,\n'
        "                       char* told, int size) {\n"
        "  return sim::run(buffers, count, blocks, threads, order, told, size, dsl_call, dsl_enter);\n}\n"
    )


def _added_to(kernel: Kernel) -> set[str]:
    return {op.ref for op in walk(kernel.body) if isinstance(op, AtomicAdd)}


def _watching(head: str, dialect: Dialect, program: Program, watched: set[str]) -> str:
    """The kernel's head with outputs that know who wrote each element; those of atomic adds stay pointers."""
    for number, ref in enumerate(program.parameters):
        if ref.name in watched:
            for name in (f"{ref.name}_ref", f"{ref.name}_result"):
                kind = dialect.types[ref.dtype]
                words = dialect.parameter.format(const="", type=kind, name=name, number=number)
                head = head.replace(words, f"sim::Out<{kind}> {name}")
    return head


def _compile(found: str, text: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        source, built = Path(scratch) / "program.cpp", Path(scratch) / LIBRARY
        source.write_text(text)
        include = (f"-I{HERE}", f"-I{HERE / 'metal'}")
        command = [found, *FLAGS, *include, "-o", str(built), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BuildError(_first_error(done.stderr, text))
        return built.read_bytes()


def _first_error(told: str, text: str) -> str:
    for line in told.splitlines():
        match = re.match(r".*program\.cpp:(\d+):\d+: (?:fatal )?error: (.*)", line)
        if match:
            return f"{match[2]} in: {text.splitlines()[int(match[1]) - 1].strip()}"
    return told.strip().splitlines()[-1] if told.strip() else "the compiler failed without a message"
