"""What the DSL's runtime did, as metrics: read from its running totals when somebody asks.

Labels are the names of backends and of kinds of reasons, both from fixed lists; a backend that an
experiment registered is "other". Kernels' names never become labels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from dsl.runtime.profile import KINDS, PROFILE, Profile
from dsl.runtime.targets import MODULES

__all__ = ["KernelMetrics"]

Labels = tuple[str, ...]


class KernelMetrics(Collector):
    """The totals of this process, for a registry. Safe from any thread."""

    def __init__(self, profile: Profile = PROFILE) -> None:
        self._profile = profile

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        totals = self._profile.totals()
        yield _counter("kernels", "Kernel calls traced, by the backend that runs them", _known(totals.chosen))
        skipped: Counter[Labels] = Counter()
        for (backend, kind), count in totals.skipped.items():
            skipped[_backend(backend), kind] += count
        told = f"Backends passed over while tracing, by kind of reason: {', '.join(KINDS)}"
        yield _counter("skipped", told, skipped, ("backend", "reason_kind"))
        results: Counter[Labels] = Counter({("hit",): 0, ("miss",): 0})
        misses: Counter[Labels] = Counter()
        for (backend, result), count in totals.compilations.items():
            results[(result,)] += count
            misses[(_backend(backend),)] += count if result == "miss" else 0
        yield _counter("cache", "Compiled kernels found on disk (hit) or made (miss)", results, ("result",))
        yield _summary("compile_seconds", "To compile and check a kernel", misses, totals.compile_seconds)
        yield _counter(
            "self_check_failures", "Kernels that failed their first-use check", _known(totals.failed)
        )
        yield _counter("tuned", "Calls tuned, by the backend that won", _known(totals.tuned))


def _backend(name: str) -> str:
    return name if name in MODULES else "other"


def _known(counts: Mapping[str, int]) -> Mapping[Labels, int]:
    found: Counter[Labels] = Counter()
    for name, count in counts.items():
        found[(_backend(name),)] += count
    return found


def _counter(name: str, told: str, counts: Mapping[Labels, int], labels: Labels = ("backend",)) -> Metric:
    family = CounterMetricFamily(f"tarsia_dsl_{name}", told, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _summary(name: str, told: str, counts: Mapping[Labels, int], seconds: Mapping[str, float]) -> Metric:
    family = SummaryMetricFamily(f"tarsia_dsl_{name}", told, labels=("backend",))
    for labels, count in counts.items():
        if count:
            total = sum(spent for name, spent in seconds.items() if (_backend(name),) == labels)
            family.add_metric(labels, count, total)
    return family
