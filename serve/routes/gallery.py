"""`/v1/images`: images kept by their vectors, and searched by an image or by words."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from engine.errors import InvalidRequest
from engine.vision.io import ImageFile, data_url_bytes
from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.routes.embeddings import image_limits
from serve.routes.images import ImagesRequest, read_images, run_on_images

if TYPE_CHECKING:
    from serve.gallery import FoundImage, ImageRecord

__all__ = ["ROUTES"]

MOST_FOUND = 1000


class SearchRequest(BaseModel):
    """Either `image` (a `data:` URL in base64, or base64 alone) or `text`, for models that read texts."""

    model_config = ConfigDict(strict=True, extra="ignore")

    image: str | None = None
    text: Annotated[str, Field(max_length=4000)] | None = None
    k: Annotated[int, Field(ge=1, le=MOST_FOUND)] = 10
    model: str | None = None

    def query(self) -> ImageFile | str:
        """Raises InvalidRequest if neither or both are given."""
        if (self.image is None) == (self.text is None):
            raise InvalidRequest("give either image or text", param="image")
        if self.image is not None:
            return ImageFile("image", data_url_bytes(self.image, param="image"), "image")
        if not (self.text or "").strip():
            raise InvalidRequest("text is empty", param="text")
        return self.text or ""


class KeepRequest(ImagesRequest):
    """`names` of the images, for those who look at what is found; else they are called by their place."""

    names: list[Annotated[str, Field(max_length=255)]] | None = None


@takes(KeepRequest)
async def keep(request: Request) -> JSONResponse:
    """Stores images by their vectors, all or none; the same content again is stored once."""
    body, files = await read_images(request, KeepRequest)
    if body.names is not None:
        if len(body.names) != len(files):
            raise InvalidRequest(f"{len(files)} images have {len(body.names)} names", param="names")
        files = [replace(file, name=name) for name, file in zip(body.names, files, strict=True)]
    runtime = services_of(request).runtime
    gallery = await services_of(request).heavy.run(runtime.gallery, body.model)
    records = await run_on_images(request, "keep", gallery.add, files, limits=image_limits(request))
    return JSONResponse({"object": "list", "data": [_listed(record) for record in records]})


@takes(SearchRequest)
async def search(request: Request) -> JSONResponse:
    """The stored images most like an image, or that fit a text best, best first; scores are cosines."""
    body = await read_body(request, SearchRequest)
    runtime, query = services_of(request).runtime, body.query()
    gallery = await services_of(request).heavy.run(runtime.gallery, body.model)
    limits = image_limits(request)
    found = await run_on_images(request, "search_images", gallery.search, query, body.k, limits=limits)
    return JSONResponse({"object": "list", "data": [_found(each) for each in found]})


async def list_images(request: Request) -> JSONResponse:
    """All stored images, oldest first."""
    services = services_of(request)
    gallery = await services.heavy.run(services.runtime.gallery, None)
    records = await services.light.run(gallery.images)
    return JSONResponse({"object": "list", "data": [_listed(record) for record in records]})


async def forget(request: Request) -> JSONResponse:
    """Forgets one stored image."""
    services, image_id = services_of(request), request.path_params["id"]
    gallery = await services.heavy.run(services.runtime.gallery, None)
    await services.light.run(gallery.delete, image_id)
    return JSONResponse({"id": image_id, "deleted": True})


def _listed(record: "ImageRecord") -> dict[str, Any]:
    return {"object": "image", **asdict(record)}


def _found(found: "FoundImage") -> dict[str, Any]:
    return {**_listed(found.image), "score": found.score}


ROUTES = [
    Route("/v1/images", keep, methods=["POST"]),
    Route("/v1/images", list_images),
    Route("/v1/images/search", search, methods=["POST"]),
    Route("/v1/images/{id}", forget, methods=["DELETE"]),
]
