"""The `metal` target: source on any machine; on a Mac, a launch behind an FFI handler of the CPU platform.

Never run on Apple hardware. What stands for it: the same source is executed by `sim:metal` and type-checked
by clang, and on a Mac each kernel is compared with the oracle before its first use. JAX has no Metal
platform that takes kernels of ours (jax-metal is dead, jax-mps takes none), so arrays are copied to and fro.
"""

import platform
from collections.abc import Callable, Sequence
from functools import lru_cache

import jax
import numpy as np

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.lower.c.dialects import METAL
from dsl.lower.c.emit import Unsupported, emit
from dsl.runtime.profile import PROFILE, CheckFailed, Refusal
from dsl.runtime.selfcheck import disagreement
from dsl.runtime.targets import Resources, resources_of
from dsl.targets import ffi
from dsl.targets.metal.launch import Array, MetalError, Pipeline
from dsl.targets.metal.objc import device


class MetalTarget:
    """Kernels on Apple GPUs."""

    name = "metal"
    platforms: tuple[str, ...] = ("cpu",)

    def refuses(self, kernel: Kernel) -> str | None:
        if platform.system() != "Darwin":
            told = f"Metal needs macOS, and this is {platform.system()}; sim:metal runs the same source here"
            return Refusal(told, "missing")
        if device() is None:
            return Refusal("there is no Metal device on this machine", "missing")
        return _refusal(kernel)

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        return ffi.caller(kernel, self.name, "cpu", host_launch(kernel, _pipeline(kernel)))

    def source(self, kernel: Kernel) -> str:
        """The Metal Shading Language, on any machine."""
        try:
            return emit(kernel, METAL).source
        except Unsupported as reason:
            raise BackendError(f"metal cannot take {kernel.name}: {reason}") from None

    def resources(self, kernel: Kernel) -> tuple[Resources, ...]:
        """Threads and shared memory, on any machine; () when the kernel is refused."""
        try:
            program = emit(kernel, METAL)
        except Unsupported:
            return ()
        return (resources_of(program, self.name),)


def host_launch(kernel: Kernel, run: Callable[[Sequence[Array]], None]) -> ffi.Launch:
    """`run` on XLA's own buffers of the host, which begin as Metal source expects them to."""

    def on_buffers(inputs: Sequence[Array], results: Sequence[Array]) -> None:
        for ref, result in zip(kernel.outputs, results, strict=True):
            if ref.role == "out":
                result[...] = 0
        launch(kernel, run, inputs, results)

    return ffi.on_host(kernel, on_buffers)


def launch(
    kernel: Kernel,
    run: Callable[[Sequence[Array]], None],
    inputs: Sequence[Array],
    results: Sequence[Array],
) -> None:
    """Gives `run` one array for each parameter; `results` begin as the outputs do and are written."""
    read = {ref.name: x for ref, x in zip(kernel.inputs, inputs, strict=True)}
    written = {ref.name: x for ref, x in zip(kernel.outputs, results, strict=True)}
    memory = {name: np.ascontiguousarray(x) for name, x in read.items()} | written
    run([memory[ref.name] for ref in emit(kernel, METAL).parameters])


@lru_cache(maxsize=512)
def _pipeline(kernel: Kernel) -> Pipeline:
    return Pipeline(emit(kernel, METAL))


@lru_cache(maxsize=512)
def _refusal(kernel: Kernel) -> str | None:
    try:
        pipeline = _pipeline(kernel)
        wrong = disagreement(kernel, lambda inputs, results, _: launch(kernel, pipeline, inputs, results))
    except Unsupported as reason:
        return str(reason)
    except MetalError as reason:
        return Refusal(f"Metal refuses the generated source: {reason}", "compiler")
    if wrong is None:
        return None
    PROFILE.record(CheckFailed(kernel.name, "metal", wrong))
    return Refusal(wrong, "self-check")


TARGET = MetalTarget()
