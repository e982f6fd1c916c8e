"""One metadata field over many rows, dictionary-encoded: what filters are evaluated on.

A predicate runs once per distinct value, then NumPy spreads the answer over the rows.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


class Missing:
    """The value of a field that a row does not have; there is one, `MISSING`."""


MISSING = Missing()


def field_value(metadata: Mapping[str, Any], field: str) -> Any:
    """The value under a key, or under a dotted path into nested objects; MISSING if there is none."""
    if field in metadata:
        return metadata[field]
    value: Any = metadata
    for key in field.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return MISSING
        value = value[key]
    return value


class Column:
    """Values of one field, append-only. Not thread-safe while it is extended."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._codes: dict[Any, int] = {}
        self._rows = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    def extend(self, values: Iterable[Any]) -> None:
        """Adds one value, or MISSING, per further row."""
        codes = np.fromiter((self._code(value) for value in values), np.int32)
        self._rows = np.concatenate([self._rows, codes])

    def _code(self, value: Any) -> int:
        # The type is part of the key: Python holds True == 1 == 1.0.
        plain = value is MISSING or isinstance(value, (str, int, float))
        key = (type(value), value if plain else json.dumps(value, sort_keys=True))
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self._values)
            self._values.append(value)
        return code

    def where(self, predicate: Callable[[Any], bool], count: int) -> Bools:
        """Which of the first `count` rows have a value that satisfies `predicate`: bool (count,)."""
        truth = np.fromiter(map(predicate, self._values), np.bool_, len(self._values))
        return truth[self._rows[:count]]
