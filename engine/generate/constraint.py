"""What the text of a reply must look like: a description, checked for size, and not yet compiled."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import InvalidRequest

MOST_CHARACTERS = 64 * 1024
MOST_DEPTH = 32
MOST_TEXT = 4096
"""Characters of one regular expression, constant or name: compiling takes time by the square of it."""
LARGEST_EXACT = 2**53
"""The parser holds numbers as float64 and integers in 64 bits: beyond it they are not told apart, and near
-2^63 the stack of the process overflows."""
_BOUNDS = {"minimum": 1, "exclusiveMinimum": 1, "maximum": -1, "exclusiveMaximum": -1}
"""Which way is inside the bound."""
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value maps names to schemas."""
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Constraint:
    """A grammar that a reply follows from its first to its last character.

    Attributes:
        kind: "json" (`source` is a JSON schema), "regex" or "lark".
        param: the request's field that it came from, for errors.

    >>> Constraint.json_schema({"type": "object"})
    >>> Constraint.regex("[0-9]{4}")
    >>> Constraint.choice(["yes", "no"])
    """

    kind: Literal["json", "regex", "lark"]
    source: str
    param: str = "response_format"

    def __post_init__(self) -> None:
        if len(self.source) > MOST_CHARACTERS:
            raise InvalidRequest(
                f"{self.param} has {len(self.source)} characters, more than {MOST_CHARACTERS}",
                param=self.param,
            )

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any], param: str = "response_format") -> "Constraint":
        """JSON that `schema` accepts, on one line. Raises InvalidRequest for one too deep or too large."""
        return cls("json", schema_text(schema, param), param)

    @classmethod
    def regex(cls, pattern: str, param: str = "guided_regex") -> "Constraint":
        """Text that the whole of a regular expression (Rust's syntax) matches."""
        _require_short(pattern, param)
        return cls("regex", pattern, param)

    @classmethod
    def choice(cls, texts: Sequence[str], param: str = "guided_choice") -> "Constraint":
        """One of some texts."""
        if not texts or not all(texts):
            raise InvalidRequest(f"{param} must be a list of texts that are not empty", param=param)
        for text in texts:
            _require_short(text, param)
        return cls("lark", f"start: {' | '.join(map(lark_string, texts))}", param)


def schema_text(schema: Mapping[str, Any], param: str) -> str:
    """A JSON schema as text that asks for JSON on one line."""
    if _depth(schema) > MOST_DEPTH:
        raise InvalidRequest(f"{param} is nested deeper than {MOST_DEPTH} levels", param=param)
    try:
        return json.dumps({**_exact(schema, param), "x-guidance": _COMPACT}, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{param} is no JSON: {error}", param=param) from error


def _exact(schema: Any, param: str) -> Any:
    """The schema with bounds of at most LARGEST_EXACT: what it lets through, the given schema does too."""
    if isinstance(schema, Mapping):
        return {key: _exact_keyword(key, value, param) for key, value in schema.items()}
    if isinstance(schema, list | tuple):
        return [_exact(item, param) for item in schema]
    return schema


def _exact_keyword(key: str, value: Any, param: str) -> Any:
    if key in ("enum", "const"):
        _require_exact(value, param)
        return value
    if key == "pattern":
        _require_short(value, param)
    if key in _NAMED and isinstance(value, Mapping):
        for name in value:
            _require_short(name, param)
        return {name: _exact(inner, param) for name, inner in value.items()}
    if key in _BOUNDS and isinstance(value, int | float):
        return _inside(value, _BOUNDS[key], param)
    return _exact(value, param)


def _require_exact(value: Any, param: str) -> None:
    if isinstance(value, int) and abs(value) > LARGEST_EXACT:
        raise InvalidRequest(f"{param} has an integer beyond 2^53, {str(value)[:40]}", param=param)
    _require_short(value, param)
    if isinstance(value, Mapping | list | tuple):
        for inner in (*value, *value.values()) if isinstance(value, Mapping) else value:
            _require_exact(inner, param)


def _require_short(value: Any, param: str) -> None:
    if isinstance(value, str) and len(value) > MOST_TEXT:
        raise InvalidRequest(
            f"{param} has a text of {len(value)} characters; {MOST_TEXT} may be", param=param
        )


def _inside(bound: float, way: int, param: str) -> float:
    """The bound, or the exact one inside it: the parser's recursion has no end where 64 bits overflow."""
    if not LARGEST_EXACT < abs(bound) < math.inf:
        return bound  # NaN and infinities are refused with the rest of what is no JSON
    if bound * way > 0:
        raise InvalidRequest(f"{param} has a bound beyond 2^53, {str(bound)[:40]}", param=param)
    return -way * LARGEST_EXACT


def lark_string(text: str) -> str:
    """A text as a terminal of a Lark grammar."""
    return json.dumps(text)


def _depth(value: Any) -> int:
    """Levels of nesting, without recursion; stops counting once there are too many."""
    depth, level = 0, [value]
    while level and depth <= MOST_DEPTH:
        depth += 1
        nested = [inner for inner in level if isinstance(inner, Mapping | list | tuple)]
        level = [
            item for inner in nested for item in (inner.values() if isinstance(inner, Mapping) else inner)
        ]
    return depth
