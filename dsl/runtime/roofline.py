"""The roofline of a kernel: the least time its bytes and its flops take on this machine.

Williams, Waterman and Patterson (2009). A processor is measured once, in a fifth of a
second; GPUs are stated as their maker states them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from dsl.passes.cost import Cost


@dataclass(frozen=True)
class Machine:
    """Peaks of one device.

    Attributes:
        name: as people know it.
        bandwidth: bytes a second between memory and processor.
        flops: f32 operations a second, without tensor cores.
        measured: False where the figures are the maker's.
    """

    name: str
    bandwidth: float
    flops: float
    measured: bool


STATED = (
    Machine("H200", 4.8e12, 67e12, False),
    Machine("H100", 3.35e12, 67e12, False),
    Machine("A100", 1.555e12, 19.5e12, False),
    Machine("L4", 0.3e12, 30.3e12, False),
)
"""GPUs by what their `device_kind` contains; the 40 GB A100, of which the 80 GB one is the faster."""


@dataclass(frozen=True)
class Roofline:
    """Seconds that a kernel takes at least; `str` gives the line that `explain` shows."""

    machine: Machine
    memory: float
    arithmetic: float

    @property
    def seconds(self) -> float:
        return max(self.memory, self.arithmetic)

    @property
    def bound(self) -> str:
        return "memory" if self.memory >= self.arithmetic else "arithmetic"

    def __str__(self) -> str:
        how = "measured" if self.machine.measured else "stated"
        return (
            f"at least {self.seconds * 1e6:.3g} us, bound by {self.bound} ({self.machine.name}: "
            f"{self.machine.bandwidth / 1e9:.3g} GB/s, {self.machine.flops / 1e9:.3g} Gflop/s, {how})"
        )


def roofline(cost: Cost, machine: Machine) -> Roofline:
    """From the bytes that must move once and all flops."""
    return Roofline(machine, cost.unique / machine.bandwidth, cost.flops / machine.flops)


def machine(platform: str) -> Machine | None:
    """The peaks of a JAX platform's first device; None for a device that is not in the table."""
    if platform == "cpu":
        return _host()
    kind = jax.devices(platform)[0].device_kind
    return next((each for each in STATED if each.name in kind), None)


@lru_cache(maxsize=1)
def _host() -> Machine:
    with jax.ensure_compile_time_eval(), jax.default_device(jax.devices("cpu")[0]):
        multiply = jax.jit(jnp.matmul)
        square, tall, column = jnp.ones((1024, 1024)), jnp.ones((4096, 2048)), jnp.ones(2048)
        product = _best(lambda: multiply(square, square).block_until_ready())
        reading = _best(lambda: multiply(tall, column).block_until_ready())
    target = np.empty_like(tall)
    copying = _best(lambda: np.copyto(target, tall))
    # Reading is by all processors, copying by one: which is faster differs from machine to machine.
    bandwidth = max(tall.nbytes / reading, 2 * tall.nbytes / copying)
    return Machine("this processor", bandwidth, 2 * 1024**3 / product, True)


def _best(run: Callable[[], object], times: int = 10) -> float:
    """Seconds of the fastest of several runs."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)
