"""`POST /v1/embeddings`: unit vectors, as base64 of little-endian float32 or as lists of numbers."""

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import ContextLengthExceeded, InvalidRequest
from engine.protocols import Float32
from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.streaming.attend import attend

if TYPE_CHECKING:
    from engine import Engine

__all__ = ["ROUTES", "Encoding", "rendered_vectors"]

MAX_INPUTS = 2048
"""OpenAI's limit of inputs per request."""

Encoding: TypeAlias = Literal["float", "base64"]
TokenIds = list[Annotated[int, Field(ge=0, le=2**31 - 1)]]


class EmbeddingRequest(BaseModel):
    """Ours are `truncate`, which cuts a text that is too long instead of refusing it, and `input_type`,
    which says what the texts are to a search, for models that want a prompt before each."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: str | list[str] | TokenIds | list[TokenIds]
    model: str | None = None
    encoding_format: Encoding = "float"
    dimensions: int | None = None
    truncate: bool = False
    input_type: Literal["query", "document"] | None = None

    def items(self) -> Sequence[str | list[int]]:
        """The inputs as a list of texts or of token lists, none of them empty.

        Raises:
            InvalidRequest: no input, an empty one, or too many.
        """
        listed: list[Any] = [self.input] if isinstance(self.input, str) else list(self.input)
        if listed and isinstance(listed[0], int):
            listed = [listed]
        if not 1 <= len(listed) <= MAX_INPUTS:
            raise InvalidRequest(f"input must hold 1 to {MAX_INPUTS} texts, not {len(listed)}", param="input")
        if not all(listed):
            raise InvalidRequest(f"input[{listed.index(type(listed[0])())}] is empty", param="input")
        return listed


@takes(EmbeddingRequest)
async def embeddings(request: Request) -> Response:
    """Unit vectors of texts."""
    services = services_of(request)
    body = await read_body(request, EmbeddingRequest)
    engine = services.runtime.embedding_engine(body.model)
    items = body.items()
    began = time.perf_counter()
    work = services.heavy.run(_embed, engine, items, body)
    vectors, tokens = await attend(request, services.drain, work)
    services.metrics.stage("embed", time.perf_counter() - began)
    services.metrics.tokens(tokens, 0)
    content = await services.light.run(rendered_vectors, vectors, body.encoding_format, engine.name, tokens)
    return Response(content, media_type="application/json")


def _embed(engine: "Engine", items: Sequence[str | list[int]], body: EmbeddingRequest) -> tuple[Float32, int]:
    """Vectors (len(items), dim) and how many tokens were read.

    Raises:
        InvalidRequest: `dimensions` is not the model's; a token id it does not have.
        ContextLengthExceeded: a text has more tokens than the model reads.
    """
    if body.dimensions not in (None, engine.embedder.dim):
        raise InvalidRequest(
            f"dimensions must be {engine.embedder.dim}, the model's own; shorter vectors of it mean nothing",
            param="dimensions",
        )
    texts = [
        item if isinstance(item, str) else _text_of(engine, item, index) for index, item in enumerate(items)
    ]
    read = engine.embedder.prompted(texts, body.input_type)
    lengths = [len(ids) for ids in engine.tokenizer.encode_batch(read, add_special=True)]
    longest = max(lengths)
    if longest > engine.max_context and not body.truncate:
        place = f"input[{lengths.index(longest)}]"
        raise ContextLengthExceeded(
            f"{place} has {longest} tokens; {engine.name} reads {engine.max_context}. "
            "Cut the text into passages, or send truncate: true to embed its beginning.",
            param="input",
        )
    return engine.embed(texts, role=body.input_type), sum(
        min(length, engine.max_context) for length in lengths
    )


def _text_of(engine: "Engine", item: list[int], index: int) -> str:
    if max(item) >= engine.tokenizer.vocab_size:
        raise InvalidRequest(f"input[{index}] holds a token id that {engine.name} lacks", param="input")
    return engine.tokenizer.decode(item, skip_special=True)


def rendered_vectors(vectors: Float32, encoding: Encoding, model: str, tokens: int) -> bytes:
    """The reply, one vector at a time: one dump of two thousand would hold the event loop up for long."""
    encode: Callable[[Float32], object] = _base64 if encoding == "base64" else _floats
    items = (
        json.dumps({"object": "embedding", "index": index, "embedding": encode(vector)})
        for index, vector in enumerate(vectors)
    )
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    rest = json.dumps({"object": "list", "model": model, "usage": usage})
    return f'{rest[:-1]}, "data": [{", ".join(items)}]}}'.encode()


def _base64(vector: Float32) -> str:
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def _floats(vector: Float32) -> list[float]:
    return [float(value) for value in vector]


ROUTES = [Route("/v1/embeddings", embeddings, methods=["POST"])]
