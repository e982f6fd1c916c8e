"""Compiling a Metal kernel at run time and launching it on arrays in host memory.

Never run on Apple hardware: the source it launches is simulated and type-checked elsewhere, and a
first-use self-check compares it with the oracle before it is used.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsl.lower.c.emit import Program
from dsl.targets.metal.objc import Size, autoreleased, class_named, device, send, string, text_of

Array = NDArray[Any]
COMPLETED = 4
"""MTLCommandBufferStatusCompleted."""


class MetalError(Exception):
    """Metal refused the source or the launch; the message is Apple's."""


class Pipeline:
    """A compiled kernel and a queue of its own. Raises MetalError when the source does not compile."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._device = device()
        if self._device is None:
            raise MetalError("there is no Metal device")
        with autoreleased():
            library = self._library(program.source)
            function = send(library, "newFunctionWithName:", string(program.entry))
            self._state = self._checked("newComputePipelineStateWithFunction:error:", function)
            self._queue = send(self._device, "newCommandQueue")

    def _library(self, source: str) -> int:
        options = send(send(class_named("MTLCompileOptions"), "alloc"), "init")
        # Fast maths would drop the infinities and NaNs that reductions begin with.
        send(options, "setFastMathEnabled:", ctypes.c_bool(False), returns=None)
        return self._checked("newLibraryWithSource:options:error:", string(source), options)

    def _checked(self, selector: str, *arguments: int) -> int:
        error = ctypes.c_void_p()
        found: int | None = send(self._device, selector, *arguments, ctypes.addressof(error))
        if not found:
            told = text_of(send(error.value, "localizedDescription")) if error.value else "no reason given"
            raise MetalError(" ".join(told.split()))
        return found

    def __call__(self, arrays: Sequence[Array]) -> None:
        """Runs the whole grid on contiguous arrays, one for each of the program's parameters, in place.

        A Ref that stands twice is one array given twice. Raises MetalError.
        """
        with autoreleased():
            buffers = {id(x): self._buffer(x) for x in arrays}
            command = send(self._queue, "commandBuffer")
            encoder = send(command, "computeCommandEncoder")
            send(encoder, "setComputePipelineState:", self._state, returns=None)
            for number, x in enumerate(arrays):
                place = (ctypes.c_ulong(0), ctypes.c_ulong(number))
                send(encoder, "setBuffer:offset:atIndex:", buffers[id(x)], *place, returns=None)
            sizes = Size(self.program.blocks, 1, 1), Size(self.program.threads, 1, 1)
            send(encoder, "dispatchThreadgroups:threadsPerThreadgroup:", *sizes, returns=None)
            send(encoder, "endEncoding", returns=None)
            send(command, "commit", returns=None)
            send(command, "waitUntilCompleted", returns=None)
            status = send(command, "status", returns=ctypes.c_ulong)
            for refers, x in zip(self.program.parameters, arrays, strict=True):
                if refers.is_written and status == COMPLETED:
                    ctypes.memmove(x.ctypes.data, send(buffers[id(x)], "contents"), x.nbytes)
            for buffer in buffers.values():
                send(buffer, "release", returns=None)
            if status != COMPLETED:
                raise MetalError(f"the launch of {self.program.entry} ended with status {status}")

    def _buffer(self, x: Array) -> int:
        assert x.flags.c_contiguous
        data = ctypes.c_void_p(np.asarray(x).ctypes.data)
        size, shared = ctypes.c_ulong(x.nbytes), ctypes.c_ulong(0)
        found: int = send(self._device, "newBufferWithBytes:length:options:", data, size, shared)
        return found
