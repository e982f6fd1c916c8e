"""XLA's call into Python: one FFI handler, in ctypes, that gives a launch function the buffers of a call.

It is how simulated GPU code runs inside `jit` on a CPU, how Metal is launched on a Mac (whose GPU shares
the host's memory), and the second way to launch on CUDA. No compiler and no other package is needed.
The structures mirror xla/ffi/api/c_api.h, whose layout XLA keeps stable within an API major version; each
carries its own size, and what is read here are its oldest fields. Costs about 0.1 ms a call; holds the GIL.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.ir.types import RefType
from dsl.lang.arguments import NUMPY_NAME
from dsl.runtime.cache import key_of

Array = NDArray[Any]
API_MAJOR = 0
METADATA, EXECUTE, INTERNAL = 1, 3, 13
"""XLA_FFI_Extension_Metadata, XLA_FFI_ExecutionStage_EXECUTE, XLA_FFI_Error_Code_INTERNAL."""


class _Extension(Structure):
    pass


_HEAD: Any = (("size", c_size_t), ("extension", POINTER(_Extension)))
_Extension._fields_ = [("size", c_size_t), ("type", c_int), ("next", POINTER(_Extension))]


class _Version(Structure):
    _fields_ = (*_HEAD, ("major", c_int), ("minor", c_int))


class _Metadata(Structure):
    _fields_ = (("size", c_size_t), ("version", _Version), ("traits", c_uint32))


class _MetadataExtension(Structure):
    _fields_ = (("base", _Extension), ("metadata", POINTER(_Metadata)))


class _Buffer(Structure):
    _fields_ = (
        *_HEAD,
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    )


class _Buffers(Structure):
    """XLA_FFI_Args and XLA_FFI_Rets."""

    _fields_ = (*_HEAD, ("count", c_int64), ("types", c_void_p), ("items", POINTER(POINTER(_Buffer))))


class _Span(Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t))


class _Attributes(Structure):
    _fields_ = (
        *_HEAD,
        ("count", c_int64),
        ("types", POINTER(c_int)),
        ("names", POINTER(POINTER(_Span))),
        ("items", POINTER(c_void_p)),
    )


class _Api(Structure):
    """The head of XLA_FFI_Api, up to the last function that is called here."""

    _fields_ = (
        *_HEAD,
        ("version", _Version),
        ("internal", c_void_p),
        ("error_create", c_void_p),
        ("error_message", c_void_p),
        ("error_destroy", c_void_p),
        ("handler_register", c_void_p),
        ("stream_get", c_void_p),
    )


class _Frame(Structure):
    _fields_ = (
        *_HEAD,
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    )


class _ErrorCreate(Structure):
    _fields_ = (*_HEAD, ("message", c_char_p), ("code", c_int))


class _ErrorMessage(Structure):
    _fields_ = (*_HEAD, ("error", c_void_p), ("message", c_char_p))


class _StreamGet(Structure):
    _fields_ = (*_HEAD, ("context", c_void_p), ("stream", c_void_p))


class HandlerError(Exception):
    """XLA refused what a launch asked of it; the message is XLA's."""


@dataclass(frozen=True)
class Invocation:
    """One call, valid until the launch function returns.

    Attributes:
        arguments, results: addresses of the buffers, in XLA's order; device memory on a GPU.
    """

    arguments: tuple[int, ...]
    results: tuple[int, ...]
    _frame: Any

    def stream(self) -> int:
        """The stream that the launch must go to. Raises HandlerError where the platform has none."""
        given = _StreamGet(size=ctypes.sizeof(_StreamGet), context=self._frame.context)
        api = self._frame.api.contents
        error = _Function(api.stream_get)(ctypes.byref(given))
        if error:
            raise HandlerError(_told(api, error))
        return given.stream or 0


Launch = Callable[[Invocation], None]
_Function = ctypes.CFUNCTYPE(c_void_p, c_void_p)
_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
_launches: dict[str, Launch] = {}
_lock = threading.Lock()
_registered: set[str] = set()


def caller(
    kernel: Kernel, target: str, platform: str, launch: Launch
) -> Callable[..., tuple[jax.Array, ...]]:
    """A traceable function of the arrays of `kernel.inputs` that calls `launch` when it runs.

    Args:
        target: who launches; with the kernel's text it names the launch for as long as the process lives.
        platform: "cpu" or "CUDA", as XLA registers handlers.

    An exception that `launch` raises is raised from the call, by XLA, with its text.
    """
    key = key_of(target, platform, str(kernel))
    with _lock:
        _launches[key] = launch
        if platform not in _registered:
            address = ctypes.cast(_HANDLER, c_void_p).value
            capsule: Any = jax.ffi.pycapsule
            jax.ffi.register_ffi_target(_name(platform), capsule(address), platform=platform)
            _registered.add(platform)
    struct: Any = jax.ShapeDtypeStruct
    shapes = [struct(ref.shape, jnp.dtype(NUMPY_NAME[ref.dtype])) for ref in kernel.outputs]
    places = {ref.name: number for number, ref in enumerate(kernel.inputs)}
    aliases = {places[ref.name]: n for n, ref in enumerate(kernel.outputs) if ref.name in places}

    def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        run: Any = jax.ffi.ffi_call(_name(platform), shapes, input_output_aliases=aliases)
        return tuple(run(*arrays, launch=key))

    return call


def _name(platform: str) -> str:
    return f"tarsia_dsl_python_{platform.lower()}"


def on_host(kernel: Kernel, run: Callable[[Sequence[Array], Sequence[Array]], None]) -> Launch:
    """A launch for host memory: `run` gets views of the inputs and of the outputs, which it writes.

    Outputs begin undefined, but for inout ones, which begin as their inputs.
    """

    def launch(call: Invocation) -> None:
        inputs = [
            view(at, ref.stored_shape, ref) for at, ref in zip(call.arguments, kernel.inputs, strict=True)
        ]
        outputs = [view(at, ref.shape, ref) for at, ref in zip(call.results, kernel.outputs, strict=True)]
        run(inputs, outputs)

    return launch


def view(address: int, shape: tuple[int, ...], ref: RefType) -> Array:
    """An array over memory at an address, which must stay valid."""
    dtype = np.dtype(jnp.dtype(NUMPY_NAME[ref.dtype]))
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not count:
        return np.empty(shape, dtype)
    raw: Any = (ctypes.c_uint8 * count).from_address(address)
    found: Array = np.frombuffer(raw, np.uint8).view(dtype).reshape(shape)
    return found


def _handle(pointer: Any) -> int | None:
    """Nothing may be raised from here: what a launch raises becomes XLA's error."""
    frame = pointer.contents
    if frame.extension and frame.extension.contents.type == METADATA:
        _describe(frame)
        return None
    if frame.stage != EXECUTE:
        return None
    try:
        launch = _launch(_attribute(frame.attributes, "launch"))
        launch(Invocation(_addresses(frame.arguments), _addresses(frame.results), frame))
    except BaseException as error:
        return _error(frame.api.contents, f"{type(error).__name__}: {error}")
    return None


def _launch(key: str) -> Launch:
    if key not in _launches:
        raise HandlerError("the program was traced by another process: trace it again in this one")
    return _launches[key]


def _describe(frame: Any) -> None:
    """States the API's version that this handler follows. No traits: Python cannot be in a CUDA graph."""
    extension = ctypes.cast(frame.extension, POINTER(_MetadataExtension)).contents
    metadata = extension.metadata.contents
    metadata.version.major = API_MAJOR
    metadata.version.minor = frame.api.contents.version.minor if frame.api else 1
    metadata.traits = 0


def _addresses(buffers: Any) -> tuple[int, ...]:
    return tuple(buffers.items[n].contents.data or 0 for n in range(buffers.count))


def _attribute(attributes: Any, name: str) -> str:
    for n in range(attributes.count):
        if _text(attributes.names[n].contents) == name:
            return _text(ctypes.cast(attributes.items[n], POINTER(_Span)).contents)
    raise HandlerError(f"the call has no attribute {name!r}")


def _text(span: Any) -> str:
    return ctypes.string_at(span.data, span.length).decode()


def _error(api: Any, message: str) -> int | None:
    given = _ErrorCreate(size=ctypes.sizeof(_ErrorCreate), message=message.encode(), code=INTERNAL)
    made: int | None = _Function(api.error_create)(ctypes.byref(given))
    return made


def _told(api: Any, error: int) -> str:
    """The text of an error, which is freed."""
    given = _ErrorMessage(size=ctypes.sizeof(_ErrorMessage), error=error)
    _Function(api.error_message)(ctypes.byref(given))
    message = (given.message or b"no reason given").decode(errors="replace")
    # XLA_FFI_Error_Destroy_Args is a prefix of XLA_FFI_Error_GetMessage_Args.
    _Function(api.error_destroy)(ctypes.byref(_ErrorMessage(size=_ErrorMessage.message.offset, error=error)))
    return message


_HANDLER = _Handler(_handle)
"""Must live as long as XLA may call it: for ever."""
