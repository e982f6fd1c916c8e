"""`GET /v1/models` and `GET /v1/models/{id}`."""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from engine.errors import ModelNotFound
from serve.http.services import services_of

if TYPE_CHECKING:
    from serve.runtime import ModelInfo

__all__ = ["ROUTES"]


async def list_models(request: Request) -> JSONResponse:
    """The loaded models."""
    models = services_of(request).runtime.models()
    return JSONResponse({"object": "list", "data": [_listed(model) for model in models]})


async def get_model(request: Request) -> JSONResponse:
    """One loaded model."""
    wanted = request.path_params["id"]
    models = {model.id: model for model in services_of(request).runtime.models()}
    if wanted not in models:
        raise ModelNotFound(f"the model {wanted[:200]!r} does not exist; there are: {', '.join(models)}")
    return JSONResponse(_listed(models[wanted]))


def _listed(model: "ModelInfo") -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "kind": model.kind,
    }


# `path`: an id may hold a slash, which clients send as %2F and Starlette decodes.
ROUTES = [Route("/v1/models", list_models), Route("/v1/models/{id:path}", get_model)]
