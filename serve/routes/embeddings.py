"""`POST /v1/embeddings`: unit vectors, as base64 of little-endian float32 or as lists of numbers."""

import base64
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import ContextLengthExceeded, InvalidRequest, UnsupportedInput
from engine.protocols import Float32
from engine.vision.io import ImageFile
from engine.vision.limits import ImageLimits
from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.routes.embedding_request import EmbeddingRequest, Encoding, Item
from serve.streaming.attend import attend

if TYPE_CHECKING:
    from engine import Engine

__all__ = ["ROUTES", "image_limits", "rendered_vectors"]


@takes(EmbeddingRequest)
async def embeddings(request: Request) -> Response:
    """Unit vectors of texts, and of images by a model that reads them."""
    services = services_of(request)
    body = await read_body(request, EmbeddingRequest)
    engine = services.runtime.embedding_engine(body.model)
    items = await services.light.run(body.items)
    began = time.perf_counter()
    work = services.heavy.run(_embed, engine, items, body, image_limits(request))
    vectors, tokens = await attend(request, services.drain, work)
    services.metrics.stage("embed", time.perf_counter() - began)
    services.metrics.tokens(tokens, 0)
    content = await services.light.run(rendered_vectors, vectors, body.encoding_format, engine.name, tokens)
    return Response(content, media_type="application/json")


def image_limits(request: Request) -> ImageLimits:
    """What one image of a request may cost."""
    settings = services_of(request).settings
    return ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_image_pixels)


def _embed(
    engine: "Engine", items: Sequence[Item], body: EmbeddingRequest, limits: ImageLimits
) -> tuple[Float32, int]:
    """Vectors (len(items), dim) and how many tokens were read.

    Raises:
        InvalidRequest: `dimensions` is not the model's; a token id it does not have.
        UnsupportedInput: images for a model of texts, or the other way round.
        ContextLengthExceeded: a text has more tokens than the model reads.
        ImageError: an image cannot be read.
    """
    dim = engine.vision.dim if engine.kind == "vision" else engine.embedder.dim
    if body.dimensions not in (None, dim):
        raise InvalidRequest(
            f"dimensions must be {dim}, the model's own; shorter vectors of it mean nothing",
            param="dimensions",
        )
    images = [index for index, item in enumerate(items) if isinstance(item, ImageFile)]
    texts = [index for index, item in enumerate(items) if not isinstance(item, ImageFile)]
    vectors, tokens = np.zeros((len(items), dim), np.float32), 0
    if images:
        vectors[images] = _of_images(engine, [items[index] for index in images], limits)
    if texts:
        vectors[texts], tokens = _of_texts(engine, items, texts, body)
    return vectors, tokens


def _of_images(engine: "Engine", images: Sequence[Item], limits: ImageLimits) -> Float32:
    if engine.kind != "vision":
        raise UnsupportedInput(f"{engine.name} embeds texts: it reads no images", param="input")
    return engine.vision.embed([image for image in images if isinstance(image, ImageFile)], limits=limits)


def _of_texts(
    engine: "Engine", items: Sequence[Item], places: Sequence[int], body: EmbeddingRequest
) -> tuple[Float32, int]:
    texts = [_text(engine, items[place], place) for place in places]
    embed: Callable[[Sequence[str]], Float32]
    if engine.kind == "vision":
        read, embed = texts, engine.vision.texts.embed
    else:
        read = engine.embedder.prompted(texts, body.input_type)
        embed = partial(engine.embedder.embed, role=body.input_type)
    lengths = [len(ids) for ids in engine.tokenizer.encode_batch(read, add_special=True)]
    longest = max(lengths)
    if longest > engine.max_context and not body.truncate:
        place = f"input[{places[lengths.index(longest)]}]"
        raise ContextLengthExceeded(
            f"{place} has {longest} tokens; {engine.name} reads {engine.max_context}. "
            "Cut the text into passages, or send truncate: true to embed its beginning.",
            param="input",
        )
    return embed(texts), sum(min(length, engine.max_context) for length in lengths)


def _text(engine: "Engine", item: Item, index: int) -> str:
    if isinstance(item, str):
        return item
    ids = [] if isinstance(item, ImageFile) else item
    if max(ids) >= engine.tokenizer.vocab_size:
        raise InvalidRequest(f"input[{index}] holds a token id that {engine.name} lacks", param="input")
    return engine.tokenizer.decode(ids, skip_special=True)


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
