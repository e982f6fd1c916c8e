"""From the scheduler's thread to the event loop: the pieces of one request, in a bounded buffer."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

from engine.errors import Overloaded, TarsiaError
from engine.generate.request import GenerationRequest, Piece, Usage
from serve.errors import GenerationFailed

__all__ = ["Generation"]

BUFFERED_PIECES = 512
"""How far a client may fall behind its generation before it is dropped."""


class Ticket(Protocol):
    @property
    def usage(self) -> Usage: ...
    def cancel(self) -> None: ...


class Submitter(Protocol):
    """What is needed of a generator; `submit` must not block and calls the sink on its own thread."""

    def submit(self, request: GenerationRequest, sink: Callable[[Piece], None]) -> Ticket: ...


class Generation:
    """One or more sequences for one client, merged. Lives on the event loop; iterate it once.

    `fail` ends it from outside: the slots are freed at once and the iteration raises the error.

        with Generation(engine.generator, requests) as generation:
            async for index, piece in generation.pieces(): ...
    """

    def __init__(
        self, generator: Submitter, requests: Sequence[GenerationRequest], *, buffered: int = BUFFERED_PIECES
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = buffered
        self._pieces: deque[tuple[int, Piece]] = deque()
        self._wake = asyncio.Event()
        self._failure: TarsiaError | None = None
        self._unfinished = len(requests)
        self._tickets: list[Ticket] = []
        try:
            for index, request in enumerate(requests):
                self._tickets.append(generator.submit(request, partial(self._sink, index)))
        except BaseException:
            self._cancel()
            raise

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._unfinished:
            self._cancel()

    @property
    def finished(self) -> bool:
        return not self._unfinished

    @property
    def usage(self) -> Usage:
        """The prompt counted once, the completions together."""
        each = [ticket.usage for ticket in self._tickets]
        return Usage(each[0].prompt_tokens, sum(usage.completion_tokens for usage in each))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(index of the sequence, piece) as they come, until the last sequence has finished.

        Raises:
            GenerationFailed: the scheduler gave up on a sequence.
            TarsiaError: whatever `fail` was given.
            Overloaded: the client reads too slowly, the request's timeout passed, or the model is being
                unloaded.
        """
        while self._unfinished:
            index, piece = await self._next()
            if piece.finish_reason == "error":
                raise GenerationFailed(piece.error or "the model stopped unexpectedly; try again")
            if piece.finish_reason == "deadline":
                raise Overloaded("The request's timeout passed before it was done.")
            if piece.finish_reason == "cancelled":
                raise self._failure or Overloaded("The server ended this generation; try again.")
            if piece.finish_reason is not None:
                self._unfinished -= 1
            yield index, piece

    def fail(self, error: TarsiaError) -> None:
        """Frees the slots and makes the iteration raise; the first failure counts."""
        if self._unfinished and self._failure is None:
            self._failure = error
            self._cancel()
            self._wake.set()

    async def _next(self) -> tuple[int, Piece]:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._pieces:
                return self._pieces.popleft()
            self._wake.clear()
            await self._wake.wait()

    def _sink(self, index: int, piece: Piece) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(self._receive, index, piece)

    def _receive(self, index: int, piece: Piece) -> None:
        if len(self._pieces) >= self._limit:
            self.fail(Overloaded("The client reads too slowly; the generation was ended."))
        else:
            self._pieces.append((index, piece))
            self._wake.set()

    def _cancel(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()
