"""The targets `sim:cuda` and `sim:metal`: emitted GPU code, executed on a CPU behind a host callback."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsl.ir.ops import Kernel
from dsl.lang.arguments import NUMPY_NAME
from dsl.lang.errors import BackendError
from dsl.lower.c.dialects import CUDA, METAL, Dialect
from dsl.lower.c.emit import Unsupported, emit
from dsl.targets.sim.build import BuildError, compiler, library
from dsl.targets.sim.run import simulate

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
            return NO_COMPILER
        return _refusal(kernel, self.name)

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        program = emit(kernel, self.dialect)
        struct: Any = jax.ShapeDtypeStruct
        shapes = tuple(struct(ref.shape, jnp.dtype(NUMPY_NAME[ref.dtype])) for ref in kernel.outputs)

        def on_host(*arrays: Any) -> tuple[Any, ...]:
            return simulate(kernel, self.dialect, program, [np.asarray(x) for x in arrays], ORDERS)

        def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            found: tuple[jax.Array, ...] = jax.pure_callback(on_host, shapes, *arrays)
            return found

        return call

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
        return f"the generated source does not compile: {reason}"
    return None


SIM_CUDA = SimTarget(CUDA)
SIM_METAL = SimTarget(METAL)
