"""Every error a caller of the DSL may see.

DslError
├── KernelError     the kernel's source asks for what cannot be; `file` and `line` say where
├── BackendError    the target asked for by name cannot take this kernel; says why
└── ParseError      text that is not a kernel; `line` is the line of the text
"""

import sys
from pathlib import Path
from types import FrameType

from dsl.ir.types import Loc

_PACKAGE = Path(__file__).resolve().parent.parent
_OWN = tuple(f"{_PACKAGE / folder}/" for folder in ("lang", "ir", "passes", "runtime", "lower", "targets"))


class DslError(Exception):
    """Base of the tree; the message is one line: what is wrong and what to write or do instead."""


class KernelError(DslError):
    """Raised while a kernel is traced or verified; the message starts with the user's file:line."""

    def __init__(self, message: str, loc: Loc | None = None) -> None:
        where = loc or user_location()
        self.file = where.file if where else None
        self.line = where.line if where else None
        super().__init__(f"{where.file}:{where.line}: {message}" if where else message)


class BackendError(DslError):
    """Raised when a target that was forced by name is unknown or refuses the kernel."""


class ParseError(DslError):
    """Raised by `dsl.ir.text.parse_kernel`; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(f"line {line}: {message}")


def user_location() -> Loc | None:
    """File and line of the innermost frame that is not the DSL's own machinery."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            return Loc(name, frame.f_lineno)
        frame = frame.f_back
    return None
