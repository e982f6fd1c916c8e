import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from engine.errors import Overloaded
from serve.http.drain import Drain
from serve.streaming.attend import attend


def request_that_leaves_after(seconds: float) -> Request:
    async def receive():
        await asyncio.sleep(seconds)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


def test_finished_work_is_given_back():
    assert asyncio.run(attend(request_that_leaves_after(60), Drain(), asyncio.sleep(0, "done"))) == "done"


def test_an_error_of_the_work_is_raised():
    async def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(attend(request_that_leaves_after(60), Drain(), fail()))


def test_work_is_cancelled_when_the_client_leaves():
    cancelled = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(True)

    async def main():
        with pytest.raises(ClientDisconnect):
            await attend(request_that_leaves_after(0.02), Drain(), work())
        await asyncio.sleep(0)

    asyncio.run(main())
    assert cancelled == [True]


def test_work_is_refused_when_the_drain_runs_out():
    async def main():
        drain = Drain()
        asyncio.get_running_loop().call_later(0.02, drain.expire)
        await attend(request_that_leaves_after(60), drain, asyncio.sleep(60))

    with pytest.raises(Overloaded, match="shutting down"):
        asyncio.run(main())
