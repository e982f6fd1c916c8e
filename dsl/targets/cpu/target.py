"""The `cpu` target: which kernels it takes, and the FFI call that runs one inside a JAX program."""

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.lang.arguments import NUMPY_NAME
from dsl.runtime.profile import Refusal
from dsl.runtime.selfcheck import disagreement
from dsl.targets.cpu import build

Array = NDArray[Any]


class CpuTarget:
    name = "cpu"
    platforms: tuple[str, ...] = ("cpu",)

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._verdicts: dict[Kernel, tuple[str | None, str]] = {}

    def refuses(self, kernel: Kernel) -> str | None:
        """Compiles and checks on the first question about a kernel; later ones are a look-up."""
        return self._prepared(kernel)[0]

    def _prepared(self, kernel: Kernel) -> tuple[str | None, str]:
        """(why not or None, FFI target name)."""
        with self._lock:
            if kernel not in self._verdicts:
                self._verdicts[kernel] = self._prepare(kernel)
            return self._verdicts[kernel]

    @staticmethod
    def _prepare(kernel: Kernel) -> tuple[str | None, str]:
        try:
            library, key = build.library(kernel, self_check)
        except build.BuildProblem as reason:
            return Refusal(str(reason), reason.kind), ""
        name = f"tarsia_dsl_{key}"
        if name not in _registered:
            capsule: Any = jax.ffi.pycapsule
            library.seat(ctypes.c_void_p(_seats(library.seat_bytes())))
            jax.ffi.register_ffi_target(name, capsule(library.handler), platform="cpu")
            _registered[name] = library
        return None, name

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        reason, name = self._prepared(kernel)
        if reason is not None:
            raise build.BuildProblem(reason)
        struct: Any = jax.ShapeDtypeStruct
        results = [struct(ref.shape, jnp.dtype(NUMPY_NAME[ref.dtype])) for ref in kernel.outputs]
        places = {ref.name: number for number, ref in enumerate(kernel.inputs)}
        shared = {places[ref.name]: n for n, ref in enumerate(kernel.outputs) if ref.name in places}
        call = jax.ffi.ffi_call(name, results, input_output_aliases=shared)

        def run(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            return tuple(call(*arrays))

        return run

    def source(self, kernel: Kernel) -> str:
        return build.source(kernel)


@functools.cache
def _seats(size: int) -> int:
    """The address of `size` zero bytes, 64-aligned, that all kernels of this process share (`seats.h`)."""
    memory = ctypes.create_string_buffer(size + 64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # for ever: helpers may look while Python ends
    return -(-ctypes.addressof(memory) // 64) * 64


_registered: dict[str, ctypes.CDLL] = {}
"""Libraries must stay loaded as long as XLA may call their handler: for ever."""


def self_check(kernel: Kernel, library: ctypes.CDLL) -> str | None:
    """What is wrong with a compiled kernel, or None."""

    def run(inputs: Sequence[Array], outputs: Sequence[Array], programs: Sequence[int]) -> None:
        numbers = (ctypes.c_long * len(programs))(*programs)
        library.call(_pointers(inputs), _pointers(outputs), numbers, ctypes.c_long(len(programs)))

    return disagreement(kernel, run)


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * (len(arrays) + 1))(*(x.ctypes.data for x in arrays))


TARGET = CpuTarget()
