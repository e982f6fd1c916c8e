"""From the bytes of a JSON body to a checked model, with errors that name the field as OpenAI does."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from serve.errors import HttpError

__all__ = ["read_body", "refusal"]

Body = TypeVar("Body", bound=BaseModel)

_CODES = {"missing": "missing_required_parameter", "json_invalid": "invalid_json"}
_UNION_TAGS = frozenset({"str", "int", "float", "bool", "none"})


async def read_body(request: Request, kind: type[Body]) -> Body:
    """The body as `kind`; the content type is not looked at, as curl's default is a wrong one.

    Raises:
        HttpError: 400 with code invalid_json, missing_required_parameter or invalid_value, and the
            field's path in `param`, such as `messages[0].role`.
        ClientDisconnect: the client left before its body was complete.
    """
    content = await request.body()
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise refusal(error) from None


def refusal(error: ValidationError) -> HttpError:
    """The first thing that is wrong with a body, as an error of HTTP."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind, message, param = first["type"], first["msg"], _path(first["loc"])
    if kind == "json_invalid":
        text = f"The body is not valid JSON: {message.removeprefix('Invalid JSON: ')}."
    elif param is None:
        text = f"The body is not a JSON object as expected: {message}."
    else:
        text = f"{param}: {message}."
    return HttpError(400, text, code=_CODES.get(kind, "invalid_value"), param=param)


def _path(location: Sequence[str | int]) -> str | None:
    """`("messages", 0, "content", "str")` -> `messages[0].content`; pydantic's union tags are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _UNION_TAGS and not part[0].isupper():
            path += f".{part}" if path else part
    return path or None
