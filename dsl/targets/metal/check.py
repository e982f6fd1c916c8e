"""Type check of Metal source where there is no Metal: clang reads it as C++ for OpenCL.

The two languages share their address spaces and most of their words, so a header of our own is all that
stands between. Clang then refuses what Apple's compiler would: pointers that lose or change their address
space, kernel parameters without one, unknown functions and wrong arguments.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "opencl"
MISSING = "clang, which type-checks Metal source as C++ for OpenCL, is not installed: pip install libclang"
FLAGS = (
    "-x",
    "clcpp",
    "-cl-std=CLC++2021",
    "-target",
    "spir64-unknown-unknown",
    "-w",
    "-cl-no-stdinc",
    f"-I{HERE}",
)


def installed() -> bool:
    """True when there is a `clang` command, or the wheel `libclang`."""
    return shutil.which("clang") is not None or importlib.util.find_spec("clang") is not None


def problems(source: str) -> list[str]:
    """The errors that clang finds, as `line: message`; empty when the source is well-typed.

    Raises FileNotFoundError when it is not `installed`.
    """
    if importlib.util.find_spec("clang") is not None:
        return _by_library(source)
    clang = shutil.which("clang")
    if clang is None:
        raise FileNotFoundError(MISSING)
    command = [clang, *FLAGS, "-fsyntax-only", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    found = [line.split(":", 1)[1] for line in done.stderr.splitlines() if "error:" in line]
    return found or (["0: clang failed"] if done.returncode else [])


def _by_library(source: str) -> list[str]:
    cindex: Any = importlib.import_module("clang.cindex")
    unit = cindex.Index.create().parse("kernel.cl", args=list(FLAGS), unsaved_files=[("kernel.cl", source)])
    errors = [each for each in unit.diagnostics if each.severity >= cindex.Diagnostic.Error]
    return [f"{each.location.line}: {each.spelling}" for each in errors]
