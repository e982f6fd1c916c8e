import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Cancelled
from serve.streaming.sse import DONE, EventStream, event


@settings(max_examples=50)
@given(st.text())
def test_no_text_can_break_the_framing(text):
    framed = event({"content": text})
    assert framed.startswith(b"data: ") and framed.endswith(b"\n\n")
    assert len(framed.decode().splitlines()) == 2
    assert json.loads(framed[6:]) == {"content": text}


def serve(events, *, leaves_after: float | None = None, keep_alive: float = 15.0):
    """Runs a stream; gives the messages it sent and how often it noticed that the client left."""
    sent, noticed = [], []

    async def main():
        async def receive():
            await asyncio.sleep(leaves_after if leaves_after is not None else 60)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        stream = EventStream(events, on_disconnect=lambda: noticed.append(True), keep_alive=keep_alive)
        await asyncio.wait_for(stream({"type": "http"}, receive, send), 5)

    asyncio.run(main())
    return sent, len(noticed)


def test_a_stream_is_sent_event_by_event_and_ends_at_once():
    async def events():
        yield event(1)
        yield DONE

    sent, noticed = serve(events())
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert dict(sent[0]["headers"])[b"cache-control"] == b"no-cache"
    assert [(m["body"], m["more_body"]) for m in sent[1:]] == [(event(1), True), (DONE, True), (b"", False)]
    assert noticed == 0


def test_silence_is_filled_with_comments():
    async def events():
        await asyncio.sleep(0.2)
        yield event(1)

    sent, _ = serve(events(), keep_alive=0.05)
    bodies = [message["body"] for message in sent[1:]]
    assert bodies[0] == b": ping\n\n"
    assert bodies[-2:] == [event(1), b""]


def test_a_client_that_leaves_is_noticed_in_the_middle_and_the_events_are_closed():
    closed = []

    async def events():
        try:
            yield event(1)
            await asyncio.sleep(0.1)
            raise Cancelled("as the generation does when its client left")
        finally:
            closed.append(True)

    sent, noticed = serve(events(), leaves_after=0.02)
    assert noticed == 1 and closed == [True]
    assert all(message.get("more_body", True) for message in sent)


def test_an_unexpected_failure_never_looks_like_a_clean_end():
    async def events():
        yield event(1)
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        serve(events())
