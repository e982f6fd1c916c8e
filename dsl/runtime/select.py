"""Which backend runs a call, decided while JAX traces.

For each platform the program may run on: the backend that `TARSIA_DSL_BACKEND` or `backend=` forces; else
what tuning found fastest on this device (`tuned.py`); else the targets in the order of
`targets.candidates`. One that refuses is passed over with its reason, which is logged once, counted, and
shown by `explain`. `TARSIA_DSL_PRINT` (a comma list of `ir`, `source`, `explain`) writes to stderr, once a
kernel. `TARSIA_DSL_AUTOTUNE=1` tunes calls with concrete arrays before their first run.
"""

import logging
import os
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from dsl.ir.ops import Kernel
from dsl.ir.types import RefType
from dsl.lang.errors import BackendError
from dsl.runtime import targets, tuned
from dsl.runtime.grad import Function, differentiable
from dsl.runtime.profile import PROFILE, Chosen, Refusal, Skipped, kind_of
from dsl.runtime.targets import Target
from dsl.runtime.tuned import TunedCall

if TYPE_CHECKING:
    from dsl.lang.kernel import Call, KernelFunction

_log = logging.getLogger("tarsia.dsl")


@dataclass(frozen=True)
class Choice:
    """A target, the kernel specialised for it, and what was passed over on the way.

    Attributes:
        forced: True when no other target may stand in, such as for a batched kernel that this one refuses.
        tuned: the measurement that the choice follows.
    """

    target: Target
    kernel: Kernel
    skipped: tuple[Skipped, ...]
    forced: bool = False
    tuned: TunedCall | None = None

    def build(self, kernel: Kernel) -> Function:
        """The call of this kernel or of a batch of it."""
        if self.forced or self.target.refuses(kernel) is None:
            return self.target.build(kernel)
        return targets.target("xla").build(kernel)


_printed: set[tuple[str, Kernel]] = set()
_logged: set[tuple[str, str]] = set()
_LOGGED_AT_MOST = 1000


def call(function: "KernelFunction", given: "Call", backend: str | None, meta: Mapping[str, Hashable]) -> Any:
    """Runs a prepared call on the chosen backend. Raises BackendError when a forced one refuses.

    A forced backend need not run on the host too: where it does not, neither does the program.
    """
    arrays = [jnp.asarray(x) for x in given.arrays]
    if os.environ.get("TARSIA_DSL_AUTOTUNE") == "1" and not _forced(backend):
        _tune_first(function, given, arrays, meta)
    main = _main_platform()
    choices = {main: choose(function, given, backend, meta, main)}
    for each in {jax.default_backend(), "cpu"} - {main}:
        other = consider(function, given.refs, backend, meta, each)
        if isinstance(other, Choice):
            choices[each] = other
    _announce(choices[main], main)
    branches = {each: _runner(function, given, choice, meta) for each, choice in choices.items()}
    default = branches[main]
    others = {p: f for p, (key, f) in branches.items() if key != default[0]}
    if others:
        by_platform = {"cuda" if p == "gpu" else p: f for p, (_, f) in branches.items()}
        found = lax.platform_dependent(*arrays, **by_platform)
    else:
        found = default[1](*arrays)
    return found[0] if given.single else tuple(found)


def _tune_first(
    function: "KernelFunction", given: "Call", arrays: list[jax.Array], meta: Mapping[str, Hashable]
) -> None:
    """Tunes a call that nobody traces and that was not tuned before on this device."""
    if is_traced(arrays):
        return
    if tuned.lookup(function, given.refs, meta, jax.default_backend()) is None:
        from dsl.runtime.autotune import tune

        tune(function, given, meta)


def is_traced(arrays: Sequence[Any]) -> bool:
    """True when JAX traces: an array is a tracer, or one made now would be."""
    return any(isinstance(x, jax.core.Tracer) for x in (*arrays, jnp.zeros(())))


def _main_platform() -> str:
    """Where programs run unless their arrays say otherwise."""
    config: Any = jax.config
    device = config.jax_default_device
    if device is None:
        return jax.default_backend()
    named = device if isinstance(device, str) else str(device.platform)
    return "gpu" if named == "cuda" else named


def _runner(
    function: "KernelFunction", given: "Call", choice: Choice, meta: Mapping[str, Hashable]
) -> tuple[object, Function]:
    reference = function.specialise(given.refs, "xla", meta)
    run = differentiable(choice.kernel, choice.build, reference)
    return (choice.target.name, choice.kernel), run


def choose(
    function: "KernelFunction",
    given: "Call",
    backend: str | None,
    meta: Mapping[str, Hashable],
    platform: str,
) -> Choice:
    """The first target that takes the kernel on a platform. Raises BackendError if none does."""
    found = consider(function, given.refs, backend, meta, platform)
    if isinstance(found, Choice):
        return found
    _note(function.name, platform, None, found)
    told = "; ".join(f"{each.backend}: {each.reason}" for each in found)
    raise BackendError(f"no backend takes {function.name} on {platform} ({told})")


def consider(
    function: "KernelFunction",
    refs: tuple[RefType, ...],
    backend: str | None,
    meta: Mapping[str, Hashable],
    platform: str,
) -> Choice | tuple[Skipped, ...]:
    """The choice for a platform, or why nothing takes the kernel there."""
    forced = _forced(backend)
    skipped: list[Skipped] = []
    if forced is None:
        measured = tuned.lookup(function, refs, meta, platform)
        if measured is not None:
            target = targets.target(measured.backend)
            kernel = function.specialise(refs, measured.backend, {**meta, **measured.keywords})
            reason = refusal(target, kernel, platform)
            if reason is None:
                return Choice(target, kernel, (), tuned=measured)
            skipped.append(Skipped(target.name, reason, kind_of(reason)))
    for name in (forced,) if forced else targets.candidates(platform):
        target = targets.target(name)
        kernel = function.specialise(refs, name, meta)
        reason = refusal(target, kernel, platform)
        if reason is None:
            return Choice(target, kernel, tuple(skipped), forced is not None)
        skipped.append(Skipped(name, reason, kind_of(reason)))
    return tuple(skipped)


def _forced(backend: str | None) -> str | None:
    return backend or os.environ.get("TARSIA_DSL_BACKEND") or None


def refusal(target: Target, kernel: Kernel, platform: str) -> str | None:
    """Why a target does not run a kernel on a platform, or None."""
    if target.platforms and platform not in target.platforms:
        return Refusal(f"it runs on {', '.join(target.platforms)}, not on {platform}", "platform")
    return target.refuses(kernel)


def source(kernel: Kernel, name: str) -> str:
    """See `KernelFunction.source`."""
    return targets.target(name).source(kernel)


def _note(kernel: str, platform: str, backend: str | None, skipped: tuple[Skipped, ...]) -> None:
    """Records a choice and logs reasons that were not logged before."""
    PROFILE.record(Chosen(kernel, platform, backend, skipped))
    for each in skipped:
        if (each.backend, each.reason) not in _logged and len(_logged) < _LOGGED_AT_MOST:
            _logged.add((each.backend, each.reason))
            level = logging.WARNING if each.kind == "self-check" else logging.INFO
            _log.log(level, "kernel %s does not run on %s: %s", kernel, each.backend, each.reason)


def _announce(choice: Choice, platform: str) -> None:
    """Notes the choice and prints what TARSIA_DSL_PRINT asks for, the first time for a kernel."""
    kernel, name = choice.kernel, choice.target.name
    _note(kernel.name, platform, name, choice.skipped)
    wanted = {word.strip() for word in os.environ.get("TARSIA_DSL_PRINT", "").split(",")} - {""}
    if not wanted or (name, kernel) in _printed:
        return
    _printed.add((name, kernel))
    if "ir" in wanted:
        print(kernel, file=sys.stderr)
    if "source" in wanted:
        print(choice.target.source(kernel), file=sys.stderr)
    if "explain" in wanted:
        told = "".join(f"; not on {each.backend}: {each.reason}" for each in choice.skipped)
        print(f"{kernel.name}: runs on {name}{told}", file=sys.stderr)
