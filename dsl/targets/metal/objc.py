"""Objective-C messages through ctypes: what is needed to reach Metal without another package.

Written from Apple's documentation and never run on Apple hardware; see README.md of `dsl`.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from functools import lru_cache
from typing import Any

FRAMEWORK = "/System/Library/Frameworks/Metal.framework/Metal"


class Size(ctypes.Structure):
    """MTLSize."""

    _fields_ = (("width", ctypes.c_ulong), ("height", ctypes.c_ulong), ("depth", ctypes.c_ulong))


@lru_cache(maxsize=1)
def _runtime() -> Any:
    return ctypes.CDLL(find_library("objc"))


def send(receiver: int | None, selector: str, *arguments: Any, returns: Any = ctypes.c_void_p) -> Any:
    """Sends a message; arguments are ctypes values, ints (object pointers) or Size."""
    runtime = _runtime()
    runtime.sel_registerName.restype = ctypes.c_void_p
    name = runtime.sel_registerName(selector.encode())
    types = [ctypes.c_void_p if isinstance(x, int) or x is None else type(x) for x in arguments]
    prototype = ctypes.CFUNCTYPE(returns, ctypes.c_void_p, ctypes.c_void_p, *types)
    function = prototype(ctypes.cast(runtime.objc_msgSend, ctypes.c_void_p).value or 0)
    return function(receiver, name, *arguments)


def class_named(name: str) -> int:
    runtime = _runtime()
    runtime.objc_getClass.restype = ctypes.c_void_p
    found: int = runtime.objc_getClass(name.encode())
    return found


def string(text: str) -> int:
    """An autoreleased NSString."""
    found: int = send(class_named("NSString"), "stringWithUTF8String:", ctypes.c_char_p(text.encode()))
    return found


def text_of(string: int) -> str:
    data: bytes = send(string, "UTF8String", returns=ctypes.c_char_p)
    return data.decode(errors="replace")


@contextmanager
def autoreleased() -> Iterator[None]:
    """Objects that are not kept go when the block ends."""
    runtime = _runtime()
    runtime.objc_autoreleasePoolPush.restype = ctypes.c_void_p
    pool = runtime.objc_autoreleasePoolPush()
    try:
        yield
    finally:
        runtime.objc_autoreleasePoolPop(ctypes.c_void_p(pool))


@lru_cache(maxsize=1)
def device() -> int | None:
    """The default MTLDevice, or None where there is none."""
    try:
        metal = ctypes.CDLL(FRAMEWORK)
    except OSError:
        return None
    metal.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
    found: int | None = metal.MTLCreateSystemDefaultDevice()
    return found
