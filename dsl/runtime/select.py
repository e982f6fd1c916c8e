"""Which backend runs a call, decided while JAX traces; and `explain`, which says so.

For each platform the program may run on, targets are asked in the order of `targets.candidates`; one
that refuses is passed over with its reason. `TARSIA_DSL_BACKEND` forces a backend for every call without
`backend=`; `TARSIA_DSL_PRINT` (a comma list of `ir`, `source`, `explain`) writes to stderr, once a kernel.
"""

import os
import sys
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.passes.cost import Cost, cost
from dsl.runtime import targets
from dsl.runtime.grad import Function, differentiable
from dsl.runtime.roofline import Roofline, machine, roofline
from dsl.runtime.targets import Target

if TYPE_CHECKING:
    from dsl.lang.kernel import Call, KernelFunction


@dataclass(frozen=True)
class Skipped:
    """A backend that was considered and why it does not run the kernel."""

    backend: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """What `kernel.explain(...)` returns; `print` it, or read the fields."""

    kernel: str
    platform: str
    backend: str
    skipped: tuple[Skipped, ...]
    grid: tuple[int, ...]
    cost: Cost
    roofline: Roofline | None = None

    def __str__(self) -> str:
        spent = self.cost
        lines = [f"{self.kernel} grid{self.grid} on {self.platform}: runs on {self.backend}"]
        lines += [f"  not on {each.backend}: {each.reason}" for each in self.skipped]
        lines.append(f"  loads {spent.loaded} B, stores {spent.stored} B, at least {spent.unique} B once")
        lines.append(f"  {spent.flops} flops ({spent.dot_flops} in dots), {spent.intensity:.2f} a byte")
        if self.roofline is not None:
            lines.append(f"  {self.roofline}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Choice:
    """A target, the kernel specialised for it, and what was passed over on the way."""

    target: Target
    kernel: Kernel
    skipped: tuple[Skipped, ...]


_printed: set[tuple[str, Kernel]] = set()


def call(function: "KernelFunction", given: "Call", backend: str | None, meta: Mapping[str, Hashable]) -> Any:
    """Runs a prepared call on the chosen backend. Raises BackendError when a forced one refuses."""
    arrays = [jnp.asarray(x) for x in given.arrays]
    branches = {
        platform: _runner(function, given, choose(function, given, backend, meta, platform), meta)
        for platform in _platforms()
    }
    default = branches[jax.default_backend()]
    others = {p: f for p, (key, f) in branches.items() if key != default[0]}
    if others:
        by_platform = {"cuda" if p == "gpu" else p: f for p, (_, f) in branches.items()}
        found = lax.platform_dependent(*arrays, **by_platform)
    else:
        found = default[1](*arrays)
    return found[0] if given.single else tuple(found)


def _platforms() -> list[str]:
    """The default platform and the host."""
    return sorted({jax.default_backend(), "cpu"})


def _runner(
    function: "KernelFunction", given: "Call", choice: Choice, meta: Mapping[str, Hashable]
) -> tuple[object, Function]:
    _announce(choice)
    reference = function.specialise(given.refs, "xla", meta)
    run = differentiable(choice.kernel, choice.target.build, reference)
    return (choice.target.name, choice.kernel), run


def choose(
    function: "KernelFunction",
    given: "Call",
    backend: str | None,
    meta: Mapping[str, Hashable],
    platform: str,
) -> Choice:
    """The first target that takes the kernel on a platform. Raises BackendError if none does."""
    forced = backend or os.environ.get("TARSIA_DSL_BACKEND") or None
    skipped: list[Skipped] = []
    for name in (forced,) if forced else targets.candidates(platform):
        target = targets.target(name)
        kernel = function.specialise(given.refs, name, meta)
        reason = _refusal(target, kernel, platform)
        if reason is None:
            return Choice(target, kernel, tuple(skipped))
        skipped.append(Skipped(name, reason))
    told = "; ".join(f"{each.backend}: {each.reason}" for each in skipped)
    raise BackendError(f"no backend takes {function.name} on {platform} ({told})")


def _refusal(target: Target, kernel: Kernel, platform: str) -> str | None:
    if target.platforms and platform not in target.platforms:
        return f"it runs on {', '.join(target.platforms)}, not on {platform}"
    return target.refuses(kernel)


def explain(
    function: "KernelFunction", given: "Call", backend: str | None, meta: Mapping[str, Hashable]
) -> Explanation:
    """See `KernelFunction.explain`."""
    platform = jax.default_backend()
    choice = choose(function, given, backend, meta, platform)
    kernel = choice.kernel
    spent, peaks = cost(kernel), machine(platform)
    bound = roofline(spent, peaks) if peaks else None
    return Explanation(kernel.name, platform, choice.target.name, choice.skipped, kernel.grid, spent, bound)


def source(kernel: Kernel, name: str) -> str:
    """See `KernelFunction.source`."""
    return targets.target(name).source(kernel)


def _announce(choice: Choice) -> None:
    """Prints what TARSIA_DSL_PRINT asks for, the first time a kernel is run on a target."""
    wanted = {word.strip() for word in os.environ.get("TARSIA_DSL_PRINT", "").split(",")} - {""}
    key = (choice.target.name, choice.kernel)
    if not wanted or key in _printed:
        return
    _printed.add(key)
    if "ir" in wanted:
        print(choice.kernel, file=sys.stderr)
    if "source" in wanted:
        print(choice.target.source(choice.kernel), file=sys.stderr)
    if "explain" in wanted:
        told = "".join(f"; not on {each.backend}: {each.reason}" for each in choice.skipped)
        print(f"{choice.kernel.name}: runs on {choice.target.name}{told}", file=sys.stderr)
