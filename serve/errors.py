"""One table from exception to HTTP: (status, OpenAI `type`); `code` and `param` come from the error.

Every error leaves the server as OpenAI's envelope
`{"error": {"message", "type", "param", "code"}}`, which the clients of OpenAI turn into their own
exception classes by status alone.

    TarsiaError
    ├── HttpError                   what only the wire knows: a route, a header, a body's size
    └── GenerationFailed            the model broke off after it had begun
"""

import math
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from engine import errors
from stores import errors as stores

MAX_RETRY_AFTER = 120
"""Seconds. OpenAI's clients give up at once when a server asks for more."""

CLIENT_CLOSED_REQUEST = 499
"""Status in logs and metrics for a client that left; it is never sent."""

_INVALID = "invalid_request_error"
_SERVER = "server_error"


class HttpError(errors.TarsiaError):
    """Raised for what is wrong with a request as HTTP, before any model or store sees it."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class GenerationFailed(errors.TarsiaError):
    """Raised when the scheduler gives up on a sequence; the reason is in the server's log too."""

    code = "generation_failed"


ERROR_TABLE: Mapping[type[Exception], tuple[int, str]] = {
    errors.ModelNotFound: (404, _INVALID),
    errors.UnsupportedModel: (501, _SERVER),
    errors.BadCheckpoint: (500, _SERVER),
    errors.DocumentNotFound: (404, _INVALID),
    errors.ImageNotFound: (404, _INVALID),
    errors.RequestError: (400, _INVALID),
    errors.UnsupportedDocument: (415, _INVALID),
    errors.DocumentTooLarge: (413, _INVALID),
    errors.DocumentError: (422, _INVALID),
    errors.UnsupportedImage: (415, _INVALID),
    errors.ImageTooLarge: (413, _INVALID),
    errors.ImageError: (422, _INVALID),
    errors.Overloaded: (503, "overloaded_error"),
    errors.Cancelled: (CLIENT_CLOSED_REQUEST, _INVALID),
    errors.FeatureDisabled: (501, _SERVER),
    stores.CollectionNotFound: (404, _INVALID),
    stores.InvalidRow: (400, _INVALID),
    stores.InvalidQuery: (400, _INVALID),
    stores.StoreFull: (507, _SERVER),
    GenerationFailed: (500, _SERVER),
    errors.TarsiaError: (500, _SERVER),
}

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def status_and_type(error: Exception) -> tuple[int, str]:
    """Looks the error's class up, then its bases; anything unknown is (500, "server_error")."""
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    if isinstance(error, HttpError | HTTPException) and status is not None:
        return status, _SERVER if status >= 500 else _INVALID
    for kind in type(error).__mro__:
        if kind in ERROR_TABLE:
            return ERROR_TABLE[kind]
    return 500, _SERVER


def envelope(error: Exception, *, request_id: str | None = None) -> dict[str, Any]:
    """OpenAI's error object. The text of an unknown exception stays in the log: it may hold secrets."""
    status, kind = status_and_type(error)
    param: str | None = getattr(error, "param", None)
    if isinstance(error, errors.TarsiaError):
        message, code = str(error), error.code
    elif isinstance(error, HTTPException):
        message, code = error.detail, _HTTP_CODES.get(status, "http_error")
    else:
        reference = f" (request {request_id})" if request_id else ""
        message, code = f"Internal error; the server's log has the details{reference}.", "internal_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: Exception, *, request_id: str | None = None) -> JSONResponse:
    """The envelope with its status, and `Retry-After` where trying again makes sense."""
    status, _ = status_and_type(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, errors.Overloaded):
        seconds = min(MAX_RETRY_AFTER, max(1, math.ceil(error.retry_after)))
        headers["retry-after"] = str(seconds)
    return JSONResponse(envelope(error, request_id=request_id), status_code=status, headers=headers)
