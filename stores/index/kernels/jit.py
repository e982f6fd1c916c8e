"""How every kernel is compiled: without the interpreter's lock, once per machine, cached on disk."""

from collections.abc import Callable
from typing import Any

from numba import njit

_Function = Callable[..., Any]
_OPTIONS = {"fastmath": True, "nogil": True, "cache": True}


def compiled(signature: Any) -> Callable[[_Function], _Function]:
    """A kernel for arrays of the types that `signature` names, and no others."""
    return njit(signature, **_OPTIONS)  # type: ignore[call-overload,no-any-return]


def inlined(function: _Function) -> _Function:
    """A part of kernels, compiled into each."""
    return njit(function, inline="always", **_OPTIONS)  # type: ignore[call-overload,no-any-return]
