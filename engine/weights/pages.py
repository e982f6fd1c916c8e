"""Weights in large pages: a CPU reads them from memory a fifth to a third faster.

A decode step walks through all weights, and with pages of 4 KiB it waits for their addresses as well as for
their bytes: neither prefetch instructions nor the processor's own readers cross a page. Measured with
SmolLM2 135M, CPU time of a step of one row: 24.5 ms to 18.0 ms in int8, 19.9 ms to 15.4 ms in int4.
"""

import mmap

import jax
import numpy as np
from numpy.typing import NDArray

PAGE = 2 << 20
"""What the kernel joins pages to, on x86-64 and on arm64 with pages of 4 KiB."""
REGION = 32 << 20
"""Bytes asked for at a time; what is not written costs no memory."""
SMALLEST = 1 << 14
"""Bytes from which an array is moved: smaller ones lie in some cache at every step."""
ALIGNMENT = 64
"""What XLA wants of memory that it takes over without a copy."""


class LargePages:
    """Moves arrays into memory that the kernel backs with large pages, if it can.

    Only on a CPU under Linux; elsewhere, and where the kernel has no such pages, arrays stay as they are.
    A region lives as long as an array in it does. Not thread-safe.

    Example:
        >>> weights = jax.tree.map(LargePages().hold, weights)
    """

    def __init__(self) -> None:
        self._wanted = jax.default_backend() == "cpu" and hasattr(mmap, "MADV_HUGEPAGE")
        self._free: NDArray[np.uint8] = np.empty(0, np.uint8)

    def hold(self, array: jax.Array) -> jax.Array:
        """The same numbers in a large page; the array itself where that is not to be had."""
        if not self._wanted or array.nbytes < SMALLEST:
            return array
        place = self._take(array.nbytes)
        if place is None:
            return array
        source = np.asarray(array)
        copy = place.view(source.dtype).reshape(source.shape)
        copy[...] = source
        held: jax.Array = jax.device_put(copy, may_alias=True)
        return held

    def _take(self, size: int) -> NDArray[np.uint8] | None:
        whole = -(-size // ALIGNMENT) * ALIGNMENT
        if whole > self._free.size:
            found = _region(max(REGION, -(-whole // PAGE) * PAGE))
            if found is None:
                self._wanted = False
                return None
            self._free = found
        taken, self._free = self._free[:size], self._free[whole:]
        return taken


def _region(size: int) -> NDArray[np.uint8] | None:
    """Zeros from the start of a large page on, or None where the kernel does not know such pages."""
    memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return None
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % PAGE
    return whole[start : start + size]
