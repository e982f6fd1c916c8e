"""Every error a caller of the DSL may see.

DslError
├── KernelError     the kernel's source asks for what cannot be; `file` and `line` say where
│   └── NoAttribute     t.mean, x.T, ...
├── BackendError    the target asked for by name cannot take this kernel; says why
├── TunedError      a file of tuned kernels is not of the form that this version writes
└── ParseError      text that is not a kernel; `line` is the line of the text
"""

import sys
from pathlib import Path
from traceback import walk_tb
from types import FrameType

from dsl.ir.types import Loc

_PACKAGE = Path(__file__).resolve().parent.parent
_OWN = tuple(f"{_PACKAGE / folder}/" for folder in ("lang", "ir", "passes", "runtime", "lower", "targets"))
_LIBRARIES = ("/site-packages/jax/", "/site-packages/jaxlib/", "/site-packages/numpy/")


class DslError(Exception):
    """Base of the tree; the message is one line: what is wrong and what to write or do instead."""


class KernelError(DslError):
    """Raised while a kernel is traced or verified; the message starts with the user's file:line."""

    def __init__(self, message: str, loc: Loc | None = None) -> None:
        where = loc or user_location()
        self.file = where.file if where else None
        self.line = where.line if where else None
        super().__init__(f"{where.file}:{where.line}: {message}" if where else message)


class NoAttribute(KernelError, AttributeError):
    """A name that a value, window or Ref of a kernel does not have; `hasattr` works as everywhere."""


class BackendError(DslError):
    """Raised when a target that was forced by name is unknown or refuses the kernel."""


class TunedError(DslError):
    """Raised by `dsl.runtime.tuned.load`; names the file and the record."""


class ParseError(DslError):
    """Raised by `dsl.ir.text.parse_kernel`; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(f"line {line}: {message}")


def raised_at(error: BaseException) -> Loc | None:
    """The innermost place in the user's source that an error passed through."""
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    mine = [Loc(name, line) for name, line in places if _is_user(name)]
    return mine[-1] if mine else None


def _is_user(name: str) -> bool:
    return not name.startswith(_OWN) and not any(part in name for part in _LIBRARIES)


def user_location() -> Loc | None:
    """File and line of the innermost frame that is not the DSL's own machinery."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if _is_user(name):
            return Loc(name, frame.f_lineno)
        frame = frame.f_back
    return None
