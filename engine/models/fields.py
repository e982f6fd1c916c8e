"""Reads a checkpoint's configuration with types and ranges checked, naming what is wrong."""

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.ops.activations import ACTIVATIONS


class Fields:
    """A configuration from outside: a config.json object, or the metadata of a GGUF file.

    Each getter gives the value, or the default where the key is absent or null; a wrong type or a
    value out of range raises BadCheckpoint with `source`, the key and the value.

    >>> Fields({"hidden_size": 64}, "config.json").integer("hidden_size", low=1)
    64
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 1 << 31) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(key, f"must be an integer in [{low}, {high}]")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float:
        """A finite number greater than `above`."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(key, "must be a number")
        if not math.isfinite(value) or value <= above:
            raise self.bad(key, f"must be a finite number above {above:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.bad(key, "must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.bad(key, "must be a string")
        return value

    def table(self, key: str) -> "Fields":
        """A nested object; empty where the key is absent or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.bad(key, "must be an object")
        return Fields(value or {}, f"{self.source}: {key}")

    def bad(self, key: str, wanted: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.source}: {key} {wanted}, not {str(self.values.get(key))[:80]!r}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            raise BadCheckpoint(f"{self.source}: {key} is missing")
        return default


def activation(fields: Fields, key: str, default: str) -> str:
    """A name in `ops.activations`; UnsupportedModel for one that is not there."""
    found = fields.text(key, default)
    if found not in ACTIVATIONS:
        names = ", ".join(sorted(ACTIVATIONS))
        raise UnsupportedModel(f"{fields.source}: {key} {found!r} is not supported; supported: {names}")
    return found
