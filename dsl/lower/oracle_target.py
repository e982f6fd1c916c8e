"""The `oracle` target: the float64 interpreter behind a host callback, its outputs rounded once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsl.ir.ops import Kernel
from dsl.ir.text import print_kernel
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.oracle import run


class OracleTarget:
    name = "oracle"
    platforms: tuple[str, ...] = ()

    def refuses(self, kernel: Kernel) -> str | None:
        return None

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        dtypes = [jnp.dtype(NUMPY_NAME[ref.dtype]) for ref in kernel.outputs]
        shapes = [_struct(ref.shape, d) for ref, d in zip(kernel.outputs, dtypes, strict=True)]

        def on_host(*arrays: Any) -> tuple[Any, ...]:
            found = run(kernel, *(np.asarray(x) for x in arrays))
            return tuple(data.astype(dtype) for data, dtype in zip(found, dtypes, strict=True))

        def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            found: tuple[jax.Array, ...] = jax.pure_callback(on_host, tuple(shapes), *arrays)
            return found

        return call

    def source(self, kernel: Kernel) -> str:
        """The IR itself: that is what it interprets."""
        return print_kernel(kernel)


def _struct(shape: tuple[int, ...], dtype: Any) -> Any:
    struct: Any = jax.ShapeDtypeStruct
    return struct(shape, dtype)


TARGET = OracleTarget()
