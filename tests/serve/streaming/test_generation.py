"""The bridge between threads, with a scripted scheduler: pieces are pushed from a real other thread."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from engine.errors import Cancelled, Overloaded
from engine.generate.request import GenerationRequest, Piece, Usage
from serve.errors import GenerationFailed
from serve.streaming.generation import Generation

REQUEST = GenerationRequest((1, 2, 3))


class Ticket:
    def __init__(self) -> None:
        self.usage = Usage(3, 2)
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class Script:
    """Plays the pieces of each submission in a thread of its own; refuses the `refuse`-th."""

    def __init__(self, *scripts: list[Piece], refuse: int | None = None) -> None:
        self.scripts = scripts
        self.refuse = refuse
        self.tickets: list[Ticket] = []

    def submit(self, request: GenerationRequest, sink: Callable[[Piece], None]) -> Ticket:
        if len(self.tickets) == self.refuse:
            raise Overloaded("full")
        ticket = Ticket()
        script = self.scripts[len(self.tickets)]
        self.tickets.append(ticket)
        threading.Thread(target=lambda: [sink(piece) for piece in script]).start()
        return ticket


def words(*texts: str) -> list[Piece]:
    return [Piece(text) for text in texts] + [Piece("", finish_reason="stop")]


async def collect(generation: Generation) -> list[tuple[int, str]]:
    with generation:
        return [(index, piece.text) async for index, piece in generation.pieces()]


def test_pieces_arrive_in_order_and_the_slot_is_not_cancelled():
    async def main():
        script = Script(words("a", "b", "c"))
        generation = Generation(script, [REQUEST])
        assert [text for _, text in await collect(generation)] == ["a", "b", "c", ""]
        assert generation.finished
        assert not script.tickets[0].cancelled.is_set()

    asyncio.run(main())


def test_several_choices_are_told_apart_and_the_prompt_counts_once():
    async def main():
        generation = Generation(Script(words("a", "b"), words("x")), [REQUEST, REQUEST])
        pieces = await collect(generation)
        assert [text for index, text in pieces if index == 0] == ["a", "b", ""]
        assert [text for index, text in pieces if index == 1] == ["x", ""]
        assert generation.usage == Usage(3, 4)

    asyncio.run(main())


def test_a_refused_submission_takes_the_ones_before_it_along():
    async def main():
        script = Script(words("a"), words("b"), refuse=1)
        with pytest.raises(Overloaded):
            Generation(script, [REQUEST, REQUEST])
        assert script.tickets[0].cancelled.is_set()

    asyncio.run(main())


def test_leaving_early_frees_every_slot():
    async def main():
        script = Script([Piece("a")], [Piece("b")])
        with Generation(script, [REQUEST, REQUEST]) as generation:
            async for _ in generation.pieces():
                break
        assert all(ticket.cancelled.is_set() for ticket in script.tickets)

    asyncio.run(main())


def test_a_failure_from_outside_wakes_the_reader_and_frees_the_slot_at_once():
    async def main():
        script = Script([])
        generation = Generation(script, [REQUEST])
        reader = asyncio.create_task(collect(generation))
        await asyncio.sleep(0.01)
        generation.fail(Cancelled("gone"))
        assert script.tickets[0].cancelled.is_set()
        with pytest.raises(Cancelled, match="gone"):
            await reader

    asyncio.run(main())


def test_a_reader_that_falls_behind_is_dropped_with_a_reason():
    async def main():
        script = Script(words(*"abcdefgh"))
        generation = Generation(script, [REQUEST], buffered=4)
        while not script.tickets[0].cancelled.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded, match="slowly"):
            await collect(generation)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        (Piece("", finish_reason="error", error="out of memory"), GenerationFailed),
        (Piece("", finish_reason="cancelled"), Overloaded),
        (Piece("", finish_reason="deadline"), Overloaded),
    ],
)
def test_a_sequence_that_did_not_finish_is_an_error_and_no_end(piece, error):
    async def main():
        with pytest.raises(error):
            await collect(Generation(Script([Piece("a"), piece]), [REQUEST]))

    asyncio.run(main())


def test_pieces_for_a_loop_that_is_gone_are_dropped():
    sinks = []

    class Late(Script):
        def submit(self, request, sink):
            sinks.append(sink)
            return Ticket()

    async def main():
        Generation(Late(), [REQUEST])

    asyncio.run(main())
    sinks[0](Piece("too late"))
