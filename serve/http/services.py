"""What a route may reach: the runtime, the settings, the metrics, the drain and the worker threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

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

    def __init__(self, name: str, limit: int) -> None:
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, called with the caller's context.

        A cancelled caller leaves at once. A call that has begun runs to its end and keeps its thread
        until then, so clients that leave and come back cannot pile up work.
        """
        call = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


@dataclass(frozen=True)
class Services:
    """`light` is for calls of milliseconds (lookups, tokenising), `heavy` for models and parsing."""

    runtime: "Runtime"
    settings: Settings
    metrics: Metrics
    drain: Drain
    light: Threads = field(default_factory=lambda: Threads("light", 8))
    heavy: Threads = field(default_factory=lambda: Threads("heavy", 4))


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
