"""The targets that can run a kernel, and how another one joins.

A target is an object with the members of `Target`. To add one: write a module that has it as `TARGET`,
add a line to `MODULES`, and name it in `ORDER` for the platforms where it should be preferred.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError

if TYPE_CHECKING:
    from dsl.lower.c.emit import Program


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes of a processor.

    Attributes:
        arch: the architecture it was compiled for, such as "sm_90".
        threads: of a block.
        registers: of a thread; None where the target cannot know.
        spilled: bytes of registers that a thread keeps in memory; None where the target cannot know.
        shared: bytes of shared memory of a block.
        layout: which thread holds what, in words; "" for the only one there is.
    """

    arch: str
    threads: int
    registers: int | None
    spilled: int | None
    shared: int
    layout: str = ""

    def __str__(self) -> str:
        known = (
            []
            if self.registers is None
            else [f"{self.registers} registers a thread", f"{self.spilled} B of them spilled"]
        )
        layout = [f"layout {self.layout}"] if self.layout else []
        shared = f"{self.shared} B of shared memory"
        return f"{self.arch}: " + ", ".join([f"{self.threads} threads a block", *known, shared, *layout])


def resources_of(
    program: "Program", arch: str, registers: int | None = None, spilled: int | None = None
) -> Resources:
    """What emitted source takes; `registers` and `spilled` are the compiler's to say."""
    layout = program.layout
    return Resources(arch, program.threads, registers, spilled, program.shared_bytes, layout)


@runtime_checkable
class Resourceful(Protocol):
    """A target that can say what a kernel takes."""

    def resources(self, kernel: Kernel) -> tuple[Resources, ...]:
        """One for each architecture it knows of; () when it cannot take the kernel."""
        ...


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

        A `profile.Refusal` says of which kind the reason is, for metrics.

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

MEASURED: dict[str, tuple[str, ...]] = {"cpu": ("cpu", "metal"), "gpu": ("cuda", "pallas")}
"""For a JAX platform, the targets that tuning times beside those of `ORDER` and `xla`."""

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


def measured(platform: str) -> tuple[str, ...]:
    """Targets that tuning times on a platform, beside `xla`."""
    names = (*ORDER.get(platform, ()), *MEASURED.get(platform, ()))
    return tuple(dict.fromkeys(name for name in names if name != "xla"))


def candidates(platform: str) -> tuple[str, ...]:
    """Targets to try on a platform, best first; `xla` closes the list."""
    return (*(name for name in ORDER.get(platform, ()) if name != "xla"), "xla")
