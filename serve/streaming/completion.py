"""Runs a generation for a request and sends it whole or as events: shared by chat and text completions."""

import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from engine.errors import Cancelled, TarsiaError
from engine.generate.request import GenerationRequest, Usage
from serve.errors import envelope
from serve.http.services import Services, services_of
from serve.streaming.attend import attend, shutting_down
from serve.streaming.generation import Generation, Submitter
from serve.streaming.replies import ChatReply, Choice, TextReply
from serve.streaming.sse import DONE, EventStream, event

__all__ = ["respond"]

Reply = ChatReply | TextReply


async def respond(
    request: Request,
    generator: Submitter,
    requests: Sequence[GenerationRequest],
    reply: Reply,
    *,
    stream: bool,
    prefix: str = "",
) -> Response:
    """The answer to a completion request.

    Args:
        requests: one per choice.
        prefix: text put before each choice (the prompt, for `echo`).

    Raises:
        ContextLengthExceeded, Overloaded, InvalidRequest: before anything was sent.
        ClientDisconnect: the client left; its slots are free again.
    """
    services = services_of(request)
    generation = Generation(generator, requests)
    if not stream:
        work = _collect(generation, services, reply, prefix, len(requests))
        try:
            return await attend(request, services.drain, work)
        except ClientDisconnect:
            services.metrics.cancelled("client")
            raise
    events = _events(generation, services, reply, prefix, len(requests))
    return EventStream(events, on_disconnect=partial(generation.fail, Cancelled("the client left")))


async def _collect(
    generation: Generation, services: Services, reply: Reply, prefix: str, count: int
) -> Response:
    choices = [Choice(prefix) for _ in range(count)]
    timer = _Timer(services)
    with generation:
        async for index, piece in generation.pieces():
            timer.piece()
            choices[index].add(piece)
        timer.end(generation.usage)
        return JSONResponse(reply.whole(choices, generation.usage))


async def _events(
    generation: Generation, services: Services, reply: Reply, prefix: str, count: int
) -> AsyncGenerator[bytes, None]:
    """Opening chunks, increments, endings, usage if asked, `[DONE]`; or an error event and no more."""
    timer = _Timer(services)
    sent = [len(prefix)] * count
    forget = services.drain.on_expire(lambda: generation.fail(shutting_down()))
    try:
        with generation:
            for index in range(count):
                if opening := reply.opening(index):
                    yield event(opening)
                if prefix:
                    for chunk in reply.increments(index, prefix):
                        yield event(chunk)
            async for index, piece in generation.pieces():
                timer.piece()
                if piece.text or piece.logprobs:
                    for chunk in reply.increments(index, piece.text, piece.logprobs, offset=sent[index]):
                        yield event(chunk)
                    sent[index] += len(piece.text)
                if piece.finish_reason is not None:
                    for chunk in reply.endings(index, piece.finish_reason):
                        yield event(chunk)
            timer.end(generation.usage)
            if reply.with_usage:
                yield event(reply.usage_chunk(generation.usage))
        yield DONE
    except Cancelled:
        services.metrics.cancelled("client")
        raise
    except TarsiaError as error:
        services.metrics.cancelled("server")
        yield event(envelope(error))
    finally:
        forget()


class _Timer:
    """Tells the metrics when the first and the last piece came."""

    def __init__(self, services: Services) -> None:
        self._metrics = services.metrics
        self._began = time.perf_counter()
        self._first: float | None = None

    def piece(self) -> None:
        if self._first is None:
            self._first = time.perf_counter()
            self._metrics.stage("first_token", self._first - self._began)

    def end(self, usage: Usage) -> None:
        now = time.perf_counter()
        self._metrics.stage("generate", now - (self._first or now))
        self._metrics.tokens(usage.prompt_tokens, usage.completion_tokens)
