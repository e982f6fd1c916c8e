"""`compile`: `jax.jit`, with the one XLA option that decides the speed of quantised weights on a CPU.

XLA's default CPU scheduler runs ready work as early as it can, so it expands every weight to float32
before the first layer: 9 to 14 times slower than the memory-optimised one on a 30-layer model.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def compile(fn: Callable[..., Any], **jit_kwargs: Any) -> jax.stages.Wrapped:
    """`jax.jit(fn, **jit_kwargs)` plus the scheduler option when the default backend is the CPU.

    Starts JAX's backend, so call it when a model is built and not at import. Options given by the
    caller in `compiler_options` win. XLA takes options for whole programs only: inside jit or
    grad use the function itself.
    """
    options = {**compiler_options(), **jit_kwargs.pop("compiler_options", {})}
    return jax.jit(fn, compiler_options=options or None, **jit_kwargs)


def compiler_options() -> dict[str, Any]:
    """The options `compile` passes on this machine; empty where XLA does not know them."""
    if jax.default_backend() != "cpu" or not _scheduler_option_works():
        return {}
    return dict(CPU_OPTIONS)


@functools.cache
def _scheduler_option_works() -> bool:
    """Tries the option once in a process: it is an XLA debug option and may be renamed."""
    try:
        probe = jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS)
        probe.lower(jnp.float32(0)).compile()
    except Exception as error:
        warnings.warn(
            "this jaxlib does not take xla_cpu_scheduler_type; int8 and int4 models will be several times "
            f"slower on the CPU: use jaxlib 0.10.2 or quant='f32' ({str(error).splitlines()[0]})",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True
