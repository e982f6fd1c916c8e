"""The first-use check of a compiled kernel on the device itself, while JAX may be tracing."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.runtime.selfcheck import disagreement

Array = NDArray[Any]


def self_check(kernel: Kernel, call: Callable[..., tuple[jax.Array, ...]], device: Any) -> str | None:
    """Why what `call` gives on `device` is not what the oracle computes, or None."""

    def run(inputs: Sequence[Array], results: Sequence[Array], programs: Sequence[int]) -> None:
        # All programs run; those that were drawn are compared.
        with jax.ensure_compile_time_eval():
            found = jax.jit(call)(*jax.device_put(list(inputs), device))
        for result, data in zip(results, found, strict=True):
            result[...] = np.asarray(data)

    return disagreement(kernel, run)
