import asyncio
import threading
import time

import pytest

from serve.http.context import REQUEST_ID
from serve.http.services import Threads


def test_calls_run_beside_the_loop_with_the_callers_context():
    async def main():
        REQUEST_ID.set("req_9")
        return await Threads("t", 1).run(lambda: (REQUEST_ID.get(), threading.current_thread().name))

    request_id, thread = asyncio.run(main())
    assert request_id == "req_9" and thread.startswith("t_")


def test_no_more_than_the_limit_run_at_once_even_when_callers_leave():
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1

    async def main():
        threads = Threads("t", 2)
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(threads.run(work), 0.01)
        await threads.run(work)

    asyncio.run(main())
    assert most == 2


def test_an_error_reaches_the_caller():
    async def main():
        await Threads("t", 1).run(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(main())
