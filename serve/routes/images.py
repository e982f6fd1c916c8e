"""`/v1/images/...`: labels, vectors and heat maps of images, sent as JSON or as files."""

import base64
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.errors import InvalidRequest
from engine.vision.io import ImageFile, data_url_bytes
from engine.vision.limits import ImageLimits
from engine.vision.template import TEMPLATE
from serve.http.body import read_body, refusal
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.routes.embedding_request import Encoding
from serve.routes.embeddings import image_limits, rendered_vectors
from serve.streaming.attend import attend

if TYPE_CHECKING:
    from engine import Engine
    from engine.vision.heatmap import HeatMap

__all__ = ["ROUTES", "ImagesRequest", "read_images", "run_on_images"]

MAX_IMAGES = 64
"""Of one request."""
MAX_LABELS = 1000

LabelText = Annotated[str, Field(max_length=1000)]
P = ParamSpec("P")
T = TypeVar("T")
Body = TypeVar("Body", bound="ImagesRequest")


class ImagesRequest(BaseModel):
    """`images`: each a `data:` URL in base64, or base64 alone; nothing is fetched from other addresses. Or
    the same fields as multipart/form-data, each image a part named `file`."""

    model_config = ConfigDict(extra="ignore")

    images: list[str]
    model: str | None = None


class ClassifyRequest(ImagesRequest):
    """`top_k` of the classes come back, likeliest first. A CLIP or SigLIP model chooses among any `labels`
    (repeat the field in a form), each put in place of the `{}` of `template`."""

    top_k: Annotated[int, Field(ge=1)] = 5
    labels: Annotated[list[LabelText], Field(max_length=MAX_LABELS)] | None = None
    template: LabelText = TEMPLATE


class EmbedRequest(ImagesRequest):
    encoding_format: Encoding = "float"


class SaliencyRequest(ImagesRequest):
    """Of one image. `saliency` is by gradients of the likeliest class, `attention_rollout` by attention."""

    method: Literal["saliency", "attention_rollout"] = "saliency"
    return_values: bool = False


@takes(ClassifyRequest)
async def classify(request: Request) -> JSONResponse:
    """The likeliest classes of images, best first."""
    body, files = await read_images(request, ClassifyRequest)
    engine: Engine = services_of(request).runtime.vision_engine(body.model)
    predict = partial(engine.vision.predict, labels=body.labels, template=body.template)
    limits = image_limits(request)
    found = await run_on_images(request, "classify", predict, files, body.top_k, limits=limits)
    data = [
        {
            "object": "classification",
            "index": index,
            "labels": [{"label": best.label, "probability": best.probability} for best in prediction],
        }
        for index, prediction in enumerate(found)
    ]
    usage = {"images": len(files)}
    return JSONResponse({"object": "list", "model": engine.name, "data": data, "usage": usage})


@takes(EmbedRequest)
async def embed(request: Request) -> Response:
    """Unit vectors of images, in the shape of /v1/embeddings."""
    body, files = await read_images(request, EmbedRequest)
    services = services_of(request)
    engine: Engine = services.runtime.vision_engine(body.model)
    vectors = await run_on_images(request, "embed", engine.vision.embed, files, limits=image_limits(request))
    content = await services.light.run(rendered_vectors, vectors, body.encoding_format, engine.name, 0)
    return Response(content, media_type="application/json")


@takes(SaliencyRequest)
async def saliency(request: Request) -> Response:
    """What the model looked at in one image, over the image.

    With `Accept: image/png` a PNG. Else JSON with it as a data URL, and with `return_values` the map
    itself, as base64 of little-endian float32 in rows, from 0 to 1.
    """
    body, files = await read_images(request, SaliencyRequest)
    if len(files) != 1:
        raise InvalidRequest(f"one image is explained at a time, not {len(files)}", param="images")
    engine: Engine = services_of(request).runtime.vision_engine(body.model)
    limits = image_limits(request)
    found, png = await run_on_images(request, "saliency", _explained, engine, files[0], body.method, limits)
    if "image/png" in request.headers.get("accept", ""):
        return Response(png, media_type="image/png")
    return JSONResponse(_map_object(found, png, engine.name, body))


def _explained(
    engine: "Engine", file: ImageFile, method: str, limits: ImageLimits
) -> tuple["HeatMap", bytes]:
    run = engine.vision.saliency if method == "saliency" else engine.vision.attention_rollout
    found = run(file, limits=limits)
    return found, found.png()


def _map_object(found: "HeatMap", png: bytes, model: str, body: SaliencyRequest) -> dict[str, Any]:
    height, width = found.values.shape
    told: dict[str, Any] = {
        "object": "saliency",
        "model": model,
        "method": body.method,
        "label": found.label,
        "height": height,
        "width": width,
        "overlay": f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}",
    }
    if body.return_values:
        told["values"] = base64.b64encode(found.values.astype("<f4").tobytes()).decode("ascii")
    return told


async def read_images(request: Request, kind: type[Body]) -> tuple[Body, list[ImageFile]]:
    """The request and its images, from JSON or a form. Raises HttpError, InvalidRequest."""
    if _is_form(request):
        return await _read_form(request, kind)
    body = await read_body(request, kind)
    _check_count(len(body.images))
    return body, await services_of(request).light.run(_decoded, body.images)


async def _read_form(request: Request, kind: type[Body]) -> tuple[Body, list[ImageFile]]:
    async with request.form(max_files=MAX_IMAGES, max_fields=16) as form:
        parts = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        _check_count(len(parts))
        files = [
            ImageFile(part.filename or f"file[{index}]", await part.read(), "file")
            for index, part in enumerate(parts)
        ]
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        several = {name: form.getlist(name) for name in ("labels", "names") if name in form}
    try:
        return kind.model_validate({**fields, **several, "images": []}), files
    except ValidationError as error:
        raise refusal(error) from None


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_IMAGES:
        raise InvalidRequest(f"a request holds 1 to {MAX_IMAGES} images, not {count}", param="images")


def _decoded(images: Sequence[str]) -> list[ImageFile]:
    names = [f"images[{index}]" for index in range(len(images))]
    decoded = (data_url_bytes(image, param=name) for name, image in zip(names, images, strict=True))
    return [ImageFile(name, data, name) for name, data in zip(names, decoded, strict=True)]


async def run_on_images(
    request: Request, stage: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """The function's result in a worker thread, its time counted."""
    services = services_of(request)
    began = time.perf_counter()
    found = await attend(request, services.drain, services.heavy.run(function, *args, **kwargs))
    services.metrics.stage(stage, time.perf_counter() - began)
    return found


ROUTES = [
    Route("/v1/images/classify", classify, methods=["POST"]),
    Route("/v1/images/embed", embed, methods=["POST"]),
    Route("/v1/images/saliency", saliency, methods=["POST"]),
]
