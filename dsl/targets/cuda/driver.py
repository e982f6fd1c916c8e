"""The second way to launch on CUDA: libcuda through ctypes, from our own FFI handler.

Used when JAX's plugin does not bring its launcher, or cannot take the PTX, or when
TARSIA_DSL_CUDA_LAUNCHER=driver. It holds the GIL for each launch and keeps the call out of CUDA graphs; it
loads NVRTC's machine code as it is, so no ptxas is needed. Without a GPU a stand-in for libcuda, compiled
from the driver's own prototypes, checks what is passed; on one the self-check does.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from functools import lru_cache
from typing import Any

import jax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.targets import ffi
from dsl.targets.cuda.launch import Launch

LIBRARY = "libcuda.so.1"
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuStreamGetCtx": (c_void_p, POINTER(c_void_p)),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuMemsetD8Async": (c_uint64, c_ubyte, c_size_t, c_void_p),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
}
"""Parameters of the functions used, from cuda.h; all return a CUresult."""


class DriverError(Exception):
    """libcuda refused a call; the message is its own."""


class Driver:
    """libcuda with its prototypes. Raises BackendError where it is missing. Any thread may call it."""

    def __init__(self, path: str = LIBRARY) -> None:
        try:
            self._library: Any = ctypes.CDLL(path)
        except OSError as reason:
            raise BackendError(f"NVIDIA's driver library cannot be loaded: {reason}") from None
        for name, parameters in PROTOTYPES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = parameters, c_int
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function. Raises DriverError unless it succeeds."""
        status = getattr(self._library, name)(*arguments)
        if status:
            told = c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(told))
            raise DriverError(f"{name}: {(told.value or b'unknown error').decode()} ({status})")

    @contextmanager
    def context_of(self, stream: int) -> Iterator[int]:
        """Makes the context that a stream belongs to current, and gives its handle."""
        context = c_void_p()
        self.call("cuStreamGetCtx", stream, ctypes.byref(context))
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield context.value or 0
        finally:
            self.call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))


class Loaded:
    """A kernel's machine code, loaded once in each context that it is launched in."""

    def __init__(self, driver: Driver, launch: Launch) -> None:
        self._driver = driver
        self._launch = launch
        self._functions: dict[int, c_void_p] = {}
        self._lock = threading.Lock()

    def __call__(self, stream: int, addresses: Sequence[int]) -> None:
        """Launches on a stream, with one device address for each parameter. Raises DriverError."""
        launch = self._launch
        with self._driver.context_of(stream) as context:
            function = self._function(context)
            for address, count in zip(addresses, launch.zeroed, strict=True):
                if count:
                    self._driver.call("cuMemsetD8Async", address, 0, count, stream)
            values = [c_uint64(address) for address in addresses]
            pointers = (c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            block = (32 * launch.warps, 1, 1)
            self._driver.call(
                "cuLaunchKernel", function, *launch.grid, *block, launch.shared, stream, pointers, None
            )

    def _function(self, context: int) -> c_void_p:
        with self._lock:
            if context not in self._functions:
                module, function = c_void_p(), c_void_p()
                self._driver.call("cuModuleLoadData", ctypes.byref(module), self._launch.cubin)
                name = self._launch.name.encode()
                self._driver.call("cuModuleGetFunction", ctypes.byref(function), module, name)
                self._functions[context] = function
            return self._functions[context]


@lru_cache(maxsize=1)
def driver() -> Driver:
    """The machine's. Raises BackendError."""
    return Driver()


def caller(kernel: Kernel, launch: Launch) -> Callable[..., tuple[jax.Array, ...]]:
    """A traceable function that launches `launch.cubin`. Raises BackendError without a driver."""
    loaded = Loaded(driver(), launch)

    def on_device(call: ffi.Invocation) -> None:
        loaded(call.stream(), (*call.arguments, *call.results))

    return ffi.caller(kernel, "cuda", "CUDA", on_device)
