"""What a route may reach: the runtime, the settings, the metrics, the drain and the worker threads."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

from serve.config import Settings
from serve.http.drain import Drain
from serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from serve.runtime import Runtime

__all__ = ["Services", "Threads", "services_of"]

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Runs blocking calls beside the event loop, `limit` at a time; more wait their turn."""

    def __init__(self, limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. A cancelled caller leaves at once; the call itself runs to its end."""
        call = partial(function, *args, **kwargs)
        return await anyio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)


@dataclass(frozen=True)
class Services:
    """`light` is for calls of milliseconds (lookups, tokenising), `heavy` for models and parsing."""

    runtime: "Runtime"
    settings: Settings
    metrics: Metrics
    drain: Drain
    light: Threads = field(default_factory=lambda: Threads(8))
    heavy: Threads = field(default_factory=lambda: Threads(4))


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
