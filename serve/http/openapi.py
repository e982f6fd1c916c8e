"""The API's description in OpenAPI 3.1, made from the routes, their docstrings and their body models."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import Route

__all__ = ["describe", "takes"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

UPLOAD = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary"}},
        }
    }
}
"""The request body of an endpoint that takes one file."""

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)(?::(\w+))?}")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def takes(body: type[BaseModel] | dict[str, Any]) -> Callable[[Endpoint], Endpoint]:
    """Marks an endpoint with the model of its JSON body, or with an OpenAPI `content` object."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__openapi_body__ = body  # type: ignore[attr-defined]
        return endpoint

    return mark


def describe(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """The whole document. Routes without a docstring or outside the schema are described by their name."""
    listed = [route for route in routes if route.include_in_schema]
    bodies = {_body_of(route) for route in listed if isinstance(_body_of(route), type)}
    modes = sorted(((model, "validation") for model in bodies), key=lambda pair: pair[0].__name__)
    _, definitions = models_json_schema(modes, ref_template=_REF)  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        path = _PARAMETER.sub(r"{\1}", route.path)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(path, {})[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tarsia", "version": version},
        "paths": paths,
        "components": {"schemas": {**definitions.get("$defs", {}), "Error": _ERROR}},
    }


def _operation(route: Route, method: str) -> dict[str, Any]:
    summary, _, rest = (route.endpoint.__doc__ or route.name.replace("_", " ")).strip().partition("\n\n")
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": " ".join(summary.split()),
        "parameters": [_parameter(*found) for found in _PARAMETER.findall(route.path)],
        "responses": {
            "200": {"description": "Done."},
            "default": {"description": "Refused or failed.", "content": error},
        },
    }
    if rest:
        operation["description"] = " ".join(rest.split())
    if (content := _content_of(route)) is not None and method == "POST":
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(name: str, converter: str) -> dict[str, Any]:
    kind = "integer" if converter == "int" else "string"
    return {"name": name, "in": "path", "required": True, "schema": {"type": kind}}


def _body_of(route: Route) -> Any:
    return getattr(route.endpoint, "__openapi_body__", None)


def _content_of(route: Route) -> dict[str, Any] | None:
    body = _body_of(route)
    if not isinstance(body, type):
        return body  # type: ignore[no-any-return]
    return {"application/json": {"schema": {"$ref": _REF.format(model=body.__name__)}}}
