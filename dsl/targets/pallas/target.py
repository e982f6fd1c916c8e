"""When and how kernels run through Pallas.

On a CPU Pallas interprets, a millisecond or so a program: for tests, by name only. On CUDA it goes through
Triton, which wants lengths that are powers of two and is deprecated upstream since JAX 0.11; so it is
asked for by name too, and what it refuses is found by lowering the kernel, which needs no GPU.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from dsl.ir.ops import Kernel
from dsl.lang.arguments import NUMPY_NAME

TESTED = ((0, 10), (0, 11))
"""JAX versions whose Pallas this was run with: from the first, to before the last."""


class PallasTarget:
    name = "pallas"
    platforms: tuple[str, ...] = ("cpu", "cuda", "gpu")

    def refuses(self, kernel: Kernel) -> str | None:
        return _refusal(kernel, jax.default_backend())

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        from dsl.targets.pallas.call import pallas_function

        if jax.default_backend() == "cpu":
            return pallas_function(kernel, interpret=True)
        return pallas_function(kernel, interpret=False, compiler_params=_parameters())

    def source(self, kernel: Kernel) -> str:
        """The jaxpr, with the kernel's body in its `pallas_call`."""
        return str(jax.make_jaxpr(self.build(kernel))(*_structs(kernel)))


def triton_refuses(kernel: Kernel) -> str | None:
    """Why the kernel does not lower to Triton for CUDA, or None; needs no GPU."""
    reason = _version_refusal()
    if reason is not None:
        return reason
    try:
        triton_lowering(kernel)
    except Exception as error:  # Pallas has no error type of its own: whatever it raises is the reason
        return f"Pallas does not lower it for CUDA: {_told(error)}"
    return None


def triton_lowering(kernel: Kernel) -> str:
    """StableHLO for CUDA in which the kernel is one Triton call. Raises what Pallas raises."""
    from dsl.targets.pallas.call import pallas_function

    run = pallas_function(kernel, interpret=False, compiler_params=_parameters())
    lowered = jax.jit(run).trace(*_structs(kernel)).lower(lowering_platforms=("cuda",))
    return str(lowered.as_text())


def _version_refusal() -> str | None:
    version = jax.__version_info__[:2]
    if TESTED[0] <= version < TESTED[1]:
        return None
    return f"Pallas's Triton lowering was tested with JAX 0.10, and this is {jax.__version__}"


@lru_cache(maxsize=256)
def _refusal(kernel: Kernel, backend: str) -> str | None:
    return None if backend == "cpu" else triton_refuses(kernel)


def _parameters() -> Any:
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=4, num_stages=2)


def _structs(kernel: Kernel) -> list[Any]:
    struct: Any = jax.ShapeDtypeStruct
    return [struct(ref.stored_shape, jnp.dtype(NUMPY_NAME[ref.dtype])) for ref in kernel.inputs]


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


TARGET = PallasTarget()
