"""The targets that can run a kernel, and how another one joins.

A target is an object with the members of `Target`. To add one: write a module that has it as `TARGET`,
add a line to `MODULES`, and name it in `ORDER` for the platforms where it should be preferred.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import jax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError


class Target(Protocol):
    """What runs kernels. Methods are called while JAX traces, never with concrete arrays only.

    Attributes:
        name: as in `backend=` and `explain`.
        platforms: JAX platforms ("cpu", "cuda", "rocm", "metal", "mps", "tpu") it runs on; () for all.
    """

    name: str
    platforms: tuple[str, ...]

    def refuses(self, kernel: Kernel) -> str | None:
        """Why it cannot take this kernel on this machine (one line), or None.

        All that can fail belongs here: the compiler's presence, compilation, the self-check; a launch
        inside XLA cannot fall back. Must be cheap when asked again.
        """
        ...

    def build(self, kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
        """A traceable function of the arrays of `kernel.inputs` giving those of `kernel.outputs`."""
        ...

    def source(self, kernel: Kernel) -> str:
        """The code it runs, for people to read."""
        ...


MODULES: dict[str, str] = {
    "xla": "dsl.lower.xla_target",
    "oracle": "dsl.lower.oracle_target",
    "pallas": "dsl.targets.pallas.target",
    "cuda": "dsl.targets.cuda.target",
    "metal": "dsl.targets.metal.target",
    "sim:cuda": "dsl.targets.sim.cuda_target",
    "sim:metal": "dsl.targets.sim.metal_target",
    "cpu": "dsl.targets.cpu.target",
}
"""Where each target lives; imported when it is first considered."""

ORDER: dict[str, tuple[str, ...]] = {}
"""For a JAX platform, the targets to try before `xla`, best first."""

_loaded: dict[str, Target] = {}


def register(target: Target, *, before_xla_on: tuple[str, ...] = ()) -> None:
    """Adds a target at run time (tests, experiments) and prefers it on the given platforms."""
    _loaded[target.name] = target
    for platform in before_xla_on:
        ORDER[platform] = (target.name, *(name for name in ORDER.get(platform, ()) if name != target.name))


def unregister(name: str) -> None:
    """Removes a target added by `register`."""
    _loaded.pop(name, None)
    for platform, names in list(ORDER.items()):
        ORDER[platform] = tuple(each for each in names if each != name)


def names() -> list[str]:
    return sorted({*MODULES, *_loaded})


def target(name: str) -> Target:
    """The target of that name. Raises BackendError for an unknown one."""
    if name not in _loaded:
        if name not in MODULES:
            raise BackendError(f"there is no backend {name!r}; there are {', '.join(names())}")
        found: Any = import_module(MODULES[name])
        _loaded[name] = found.TARGET
    return _loaded[name]


def candidates(platform: str) -> tuple[str, ...]:
    """Targets to try on a platform, best first; `xla` closes the list."""
    return (*(name for name in ORDER.get(platform, ()) if name != "xla"), "xla")
