"""Every metric's name, in one place. Labels are few and bounded: route template, method, status class.

A path or a model name out of a request never becomes a label: it would grow without bound.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.telemetry.kernels import KernelMetrics

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

Gauges = Callable[[], Mapping[str, float | Mapping[str, float]]]
"""Reads what is live now, as gauge name (without the prefix) -> value, or the value of each collection by
its name; called once per scrape."""


class Metrics:
    """The counters of one application, in a registry of their own. Safe from any thread."""

    def __init__(self, gauges: Gauges | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double every counter
        self.registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._requests = Counter("tarsia_http_requests", "Finished requests", labels, registry=self.registry)
        self._duration = Histogram(
            "tarsia_http_request_duration_seconds",
            "From the head of a request to the last byte of its answer",
            ("route", "method"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stage = Histogram(
            "tarsia_stage_duration_seconds",
            "Parts of a request: tokenize, first_token (queue and prefill), generate, embed, ingest, answer",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "tarsia_tokens", "Tokens read and written by finished requests", ("kind",), registry=self.registry
        )
        self._cancelled = Counter(
            "tarsia_generations_cancelled", "Generations ended early", ("reason",), registry=self.registry
        )
        self.registry.register(KernelMetrics())
        if gauges is not None:
            self.registry.register(_Live(gauges))
        # A labels() call costs ten times the increment.
        self._request_child = lru_cache(1024)(self._requests.labels)
        self._duration_child = lru_cache(1024)(self._duration.labels)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one finished request; `route` is the template, such as `/v1/models/{id}`."""
        self._request_child(route, method, f"{status // 100}xx").inc()
        self._duration_child(route, method).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        self._stage.labels(name).observe(seconds)

    def tokens(self, prompt: int, completion: int) -> None:
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)

    def cancelled(self, reason: str) -> None:
        """`reason` is "client" (it left) or "server" (slow reader, shutdown, failure)."""
        self._cancelled.labels(reason).inc()

    def render(self) -> bytes:
        """The exposition text. Tens of milliseconds: call it in a thread."""
        return generate_latest(self.registry)


class _Live(Collector):
    """Gauges that are read when somebody asks, so that nothing has to keep them up to date."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        for name, value in self._gauges().items():
            about = f"tarsia_{name}", name.replace("_", " ")
            if isinstance(value, Mapping):
                family = GaugeMetricFamily(*about, labels=["collection"])
                for collection, number in value.items():
                    family.add_metric([collection], number)
                yield family
            else:
                yield GaugeMetricFamily(*about, value=value)
