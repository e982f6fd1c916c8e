"""One metadata field over many rows, dictionary-encoded: what filters are evaluated on.

A predicate runs once per distinct value, then NumPy spreads the answer over the rows; comparisons with
numbers are NumPy's as well.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
LARGEST_EXACT = 2**53
"""Integers beyond it are not all float64s."""


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
        self._numbers = np.zeros(0, np.float64)

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

    def compares(self, order: Callable[[Any, Any], Any], operand: float, count: int) -> Bools:
        """Which of the first `count` rows have a number for which `order(number, operand)`: bool (count,).

        The operand is within LARGEST_EXACT.
        """
        numbers = self._as_numbers()
        truth: Bools = order(numbers, operand)
        for code in np.flatnonzero(np.isinf(numbers)).tolist():
            truth[code] = order(self._values[code], operand)
        return truth[self._rows[:count]]

    def _as_numbers(self) -> NDArray[np.float64]:
        """Of each distinct value: itself, NaN if it is no number, an infinity if float64 may not hold it."""
        known, count = self._numbers, len(self._values)
        if len(known) < count:
            further = map(_as_number, self._values[len(known) : count])
            known = self._numbers = np.concatenate([known, np.fromiter(further, np.float64)])
        return known


def _as_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    return float(value) if abs(value) <= LARGEST_EXACT else np.inf
