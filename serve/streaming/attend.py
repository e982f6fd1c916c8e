"""Work for a client, for as long as there is a client and the server is not out of time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from engine.errors import Overloaded
from serve.http.drain import Drain

__all__ = ["attend", "shutting_down", "until_disconnect"]

T = TypeVar("T")


async def until_disconnect(receive: Receive) -> None:
    """Returns when the client has gone. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def shutting_down() -> Overloaded:
    return Overloaded("The server is shutting down before this could finish; try again.", retry_after=5)


async def attend(request: Request, drain: Drain, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; it is cancelled as soon as nobody can use it.

    Raises:
        ClientDisconnect: the client left.
        Overloaded: the drain's deadline came first.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(until_disconnect(request.receive))
    late = asyncio.Event()
    forget = drain.on_expire(late.set)
    expiry = asyncio.create_task(late.wait())
    waiting: list[asyncio.Task[Any]] = [task, gone, expiry]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise shutting_down() if late.is_set() else ClientDisconnect
    finally:
        forget()
        for one in waiting:
            one.cancel()
