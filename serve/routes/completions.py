"""`POST /v1/completions`: a plain prompt goes on, with no chat template around it."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import UnsupportedInput
from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.routes.sampling import CompletionFields
from serve.streaming.completion import respond
from serve.streaming.replies import TextReply

if TYPE_CHECKING:
    from engine import Engine

__all__ = ["ROUTES"]

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this endpoint."""

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(CompletionFields):
    prompt: str | TokenIds | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    logprobs: int | None = None

    unsupported: ClassVar[tuple[str, ...]] = ("suffix",)

    @property
    def new_tokens(self) -> int:
        return self.max_tokens or DEFAULT_MAX_TOKENS

    @property
    def likeliest(self) -> int | None:
        return self.logprobs

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise UnsupportedInput("best_of is not supported; use n", param="best_of")
        if self.echo and not isinstance(self.prompt, str):
            raise UnsupportedInput("echo needs a prompt that is one string", param="echo")
        if self.echo and self.logprobs is not None:
            raise UnsupportedInput("logprobs of the prompt are not computed: leave out echo", param="echo")


@takes(CompletionRequest)
async def completions(request: Request) -> Response:
    """The continuation of a plain prompt."""
    services = services_of(request)
    body = await read_body(request, CompletionRequest)
    engine = services.runtime.chat_engine(body.model)
    body.refuse_unsupported()
    body.requests(())
    prompt = await services.light.run(_prompt_ids, engine, body)
    generator = await services.light.run(lambda: engine.generator)
    await services.light.run(generator.prepare, body.constraint())
    return await respond(
        request,
        generator,
        body.requests(prompt),
        TextReply(engine.name, token_bytes=engine.token_bytes, with_usage=body.wants_usage),
        stream=bool(body.stream),
        prefix=body.prompt if body.echo and isinstance(body.prompt, str) else "",
    )


def _prompt_ids(engine: "Engine", body: CompletionRequest) -> tuple[int, ...]:
    """Token ids of the prompt; a list of one string counts as that string."""
    prompt = body.prompt
    if isinstance(prompt, list) and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return tuple(engine.text_prompt(prompt))
    return tuple(token for token in prompt if isinstance(token, int))


ROUTES = [Route("/v1/completions", completions, methods=["POST"])]
