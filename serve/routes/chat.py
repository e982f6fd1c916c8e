"""`POST /v1/chat/completions`, whole and as server-sent events."""

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.routes.chat_request import ChatRequest
from serve.streaming.completion import respond
from serve.streaming.replies import ChatReply
from serve.streaming.tool_reply import ToolReply

__all__ = ["ROUTES"]


@takes(ChatRequest)
async def chat_completions(request: Request) -> Response:
    """The reply to a chat; with `stream`, as server-sent events that end with `[DONE]`."""
    services = services_of(request)
    body = await read_body(request, ChatRequest)
    engine = services.runtime.chat_engine(body.model)
    body.refuse_unsupported()
    messages = body.chat()
    body.requests(())
    began = time.perf_counter()
    tools, _ = body.tools_and_constraint()
    prompt = tuple(await services.light.run(engine.chat_prompt, messages, tools))
    services.metrics.stage("tokenize", time.perf_counter() - began)
    kind = ToolReply if tools else ChatReply
    generator = await services.light.run(lambda: engine.generator)
    await services.light.run(generator.prepare, body.constraint())
    return await respond(
        request,
        generator,
        body.requests(prompt),
        kind(engine.name, token_bytes=engine.token_bytes, with_usage=body.wants_usage),
        stream=bool(body.stream),
    )


ROUTES = [Route("/v1/chat/completions", chat_completions, methods=["POST"])]
