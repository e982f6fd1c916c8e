"""What `kernel.explain(...)` says of a call: which backend, why not the others, what it costs and takes."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax

from dsl.ir.ops import Kernel
from dsl.lang.errors import BackendError
from dsl.passes.cost import Cost, cost
from dsl.runtime import targets
from dsl.runtime.profile import Skipped
from dsl.runtime.roofline import Roofline, machine, roofline
from dsl.runtime.select import Choice, consider
from dsl.runtime.targets import Resourceful, Resources
from dsl.runtime.tuned import TunedCall

if TYPE_CHECKING:
    from dsl.lang.kernel import Call, KernelFunction


@dataclass(frozen=True)
class Explanation:
    """What `kernel.explain(...)` returns; `print` it, or read the fields.

    Attributes:
        backend: None when no backend takes the call here.
        skipped: backends that were asked before, with their reasons.
        resources: registers, spills and shared memory, by architecture, where the target knows them.
        tuned: the measurement that the choice follows, if the call was tuned on this device.
    """

    kernel: str
    platform: str
    backend: str | None
    skipped: tuple[Skipped, ...]
    grid: tuple[int, ...]
    cost: Cost
    roofline: Roofline | None = None
    resources: tuple[Resources, ...] = ()
    tuned: TunedCall | None = None

    @property
    def attained(self) -> float | None:
        """The share of the roofline's speed that was measured; None when either is not known.

        Above 1 where the data fits a cache, or where the peaks were measured while the machine was busy.
        """
        if self.roofline is None or self.tuned is None:
            return None
        return self.roofline.seconds / self.tuned.seconds

    def __str__(self) -> str:
        spent = self.cost
        runs = f"runs on {self.backend}" if self.backend else "no backend takes it"
        lines = [f"{self.kernel} grid{self.grid} on {self.platform}: {runs}"]
        lines += [f"  not on {each.backend}: {each.reason}" for each in self.skipped]
        lines.append(f"  loads {spent.loaded} B, stores {spent.stored} B, at least {spent.unique} B once")
        lines.append(f"  {spent.flops} flops ({spent.dot_flops} in dots), {spent.intensity:.2f} a byte")
        lines += [f"  {each}" for each in self.resources]
        if self.tuned is not None:
            lines.append(f"  {self._measured(self.tuned)}")
        if self.roofline is not None:
            lines.append(f"  {self.roofline}")
        return "\n".join(lines)

    def _measured(self, tuned: TunedCall) -> str:
        share = f", {100 * self.attained:.0f} % of the roofline" if self.attained is not None else ""
        words = " ".join(f"{name}={value}" for name, value in tuned.keywords.items()) or "its defaults"
        timed = sum(each.seconds is not None for each in tuned.trials)
        return f"tuned: {tuned.seconds * 1e6:.3g} us with {words}, the best of {timed}{share}"


def explain(
    function: "KernelFunction", given: "Call", backend: str | None, meta: Mapping[str, Hashable]
) -> Explanation:
    """See `KernelFunction.explain`. Raises BackendError for a backend that does not exist."""
    platform = jax.default_backend()
    found = consider(function, given.refs, backend, meta, platform)
    if isinstance(found, Choice):
        kernel, name, skipped, tuned = found.kernel, found.target.name, found.skipped, found.tuned
        shown: str | None = name
    else:
        skipped, tuned, shown = found, None, None
        name = skipped[0].backend
        kernel = function.specialise(given.refs, name, meta)
    spent, peaks = cost(kernel), machine(platform) if shown else None
    bound = roofline(spent, peaks) if peaks else None
    taken = _resources(name, kernel)
    return Explanation(kernel.name, platform, shown, skipped, kernel.grid, spent, bound, taken, tuned)


def _resources(name: str, kernel: Kernel) -> tuple[Resources, ...]:
    target = targets.target(name)
    try:
        return target.resources(kernel) if isinstance(target, Resourceful) else ()
    except BackendError:
        return ()
