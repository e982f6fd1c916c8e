"""The `xla` target: the lowering of `dsl.lower.xla`, on every platform."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from dsl.ir.ops import Kernel
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.xla import Unsupported, lower


class XlaTarget:
    name = "xla"
    platforms: tuple[str, ...] = ()

    def refuses(self, kernel: Kernel) -> str | None:
        return _refusal(kernel)

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        return lower(kernel)

    def source(self, kernel: Kernel) -> str:
        """The jaxpr."""
        struct: Any = jax.ShapeDtypeStruct
        arrays = [struct(ref.stored_shape, jnp.dtype(NUMPY_NAME[ref.dtype])) for ref in kernel.inputs]
        return str(jax.make_jaxpr(lower(kernel))(*arrays))


@lru_cache(maxsize=512)
def _refusal(kernel: Kernel) -> str | None:
    try:
        lower(kernel)
    except Unsupported as reason:
        return str(reason)
    return None


TARGET = XlaTarget()
