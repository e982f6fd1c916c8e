"""What the text of a reply must look like: a description, checked for size, and not yet compiled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import InvalidRequest

MOST_CHARACTERS = 64 * 1024
MOST_DEPTH = 32
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
        return cls("regex", pattern, param)

    @classmethod
    def choice(cls, texts: Sequence[str], param: str = "guided_choice") -> "Constraint":
        """One of some texts."""
        if not texts or not all(texts):
            raise InvalidRequest(f"{param} must be a list of texts that are not empty", param=param)
        return cls("lark", f"start: {' | '.join(map(lark_string, texts))}", param)


def schema_text(schema: Mapping[str, Any], param: str) -> str:
    """A JSON schema as text that asks for JSON on one line."""
    if _depth(schema) > MOST_DEPTH:
        raise InvalidRequest(f"{param} is nested deeper than {MOST_DEPTH} levels", param=param)
    try:
        return json.dumps({**schema, "x-guidance": _COMPACT}, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{param} is no JSON: {error}", param=param) from error


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
