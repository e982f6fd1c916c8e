"""Gradients and batching around a built kernel, whichever target it runs on.

The forward pass is the target's; the backward pass is the VJP of the XLA lowering of the same IR, with
the inputs as the only residuals (the lowering is traced again). Batches become a batched kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dsl.ir.ops import Kernel
from dsl.lower.xla import lower
from dsl.runtime.vmap import batch

Function = Callable[..., tuple[jax.Array, ...]]
Build = Callable[[Kernel], Function]


def differentiable(kernel: Kernel, build: Build, reference: Kernel | None = None) -> Function:
    """`build(kernel)` with gradients with respect to its float inputs, and with a batching rule.

    `reference` is the kernel whose lowering gives the gradients, when other tile sizes suit XLA better.
    """
    forward = batchable(kernel, build)
    backward = reference or kernel

    @jax.custom_vjp
    def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return forward(*arrays)

    def call_forward(*arrays: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        return forward(*arrays), arrays

    def call_backward(arrays: tuple[jax.Array, ...], tangents: Any) -> tuple[jax.Array | None, ...]:
        return _pullback(backward, arrays, tangents)

    call.defvjp(call_forward, call_backward)
    return call


def _pullback(kernel: Kernel, arrays: Sequence[jax.Array], tangents: Any) -> tuple[jax.Array | None, ...]:
    floats = [n for n, x in enumerate(arrays) if jnp.issubdtype(x.dtype, jnp.floating)]
    run = lower(kernel)

    def of_floats(*varied: jax.Array) -> tuple[jax.Array, ...]:
        given = list(arrays)
        for number, x in zip(floats, varied, strict=True):
            given[number] = x
        return run(*given)

    _, pull = jax.vjp(of_floats, *(arrays[n] for n in floats))
    found = dict(zip(floats, pull(tangents), strict=True))
    return tuple(found.get(n) for n in range(len(arrays)))


def batchable(kernel: Kernel, build: Build) -> Function:
    """`build(kernel)` with a batching rule that builds the batched kernel; it nests."""
    run = jax.custom_batching.custom_vmap(build(kernel))

    def rule(size: int, in_batched: Sequence[bool], *arrays: jax.Array) -> Any:
        named = {ref.name for ref, yes in zip(kernel.inputs, in_batched, strict=True) if yes}
        given = [
            jnp.broadcast_to(x, (size, *x.shape)) if ref.is_written and not yes else x
            for ref, yes, x in zip(kernel.inputs, in_batched, arrays, strict=True)
        ]
        found = batchable(batch(kernel, size, named), build)(*given)
        return found, tuple(True for _ in found)

    run.def_vmap(rule)
    called: Function = run
    return called
