"""The targets `sim:cuda` and `sim:metal`: emitted GPU code, executed on a CPU behind an FFI handler."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import jax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.lower.c.dialects import CUDA, METAL, Dialect
from dsl.lower.c.emit import Unsupported, emit
from dsl.runtime.profile import Refusal
from dsl.runtime.targets import Resources, resources_of
from dsl.targets import ffi
from dsl.targets.sim.build import BuildError, compiler, library
from dsl.targets.sim.run import Array, simulate

ORDERS = (0, 1)
"""Schedules that a call runs under."""
NO_COMPILER = "there is no C++ compiler: install g++ (apt install g++) or clang++, or name one in CXX"


class SimTarget:
    """Runs the source of one dialect. A mistake that the simulator sees is raised from the call."""

    platforms: tuple[str, ...] = ("cpu",)

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.name = f"sim:{dialect.name}"

    def refuses(self, kernel: Kernel) -> str | None:
        if compiler() is None:
            return Refusal(NO_COMPILER, "missing")
        return _refusal(kernel, self.name)

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        program = emit(kernel, self.dialect)

        def run(inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
            for output, found in zip(
                outputs, simulate(kernel, self.dialect, program, inputs, ORDERS), strict=True
            ):
                output[...] = found

        return ffi.caller(kernel, self.name, "cpu", ffi.on_host(kernel, run))

    def resources(self, kernel: Kernel) -> tuple[Resources, ...]:
        """Threads and shared memory; () when the kernel is refused."""
        try:
            program = emit(kernel, self.dialect)
        except Unsupported:
            return ()
        return (resources_of(program, self.name),)

    def source(self, kernel: Kernel) -> str:
        try:
            return emit(kernel, self.dialect).source
        except Unsupported as reason:
            raise BackendError(f"{self.name} cannot take {kernel.name}: {reason}") from None


@lru_cache(maxsize=512)
def _refusal(kernel: Kernel, name: str) -> str | None:
    dialect = CUDA if name == SIM_CUDA.name else METAL
    try:
        library(kernel, dialect, emit(kernel, dialect))
    except Unsupported as reason:
        return str(reason)
    except BuildError as reason:
        return Refusal(f"the generated source does not compile: {reason}", "compiler")
    return None


SIM_CUDA = SimTarget(CUDA)
SIM_METAL = SimTarget(METAL)
