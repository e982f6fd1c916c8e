"""What values are called in emitted code, and how constants are written."""

import math

import numpy as np

from dsl.ir.types import DType, Value


class Names:
    """The C name of each value: constants are their own literals, finals share their carry's."""

    def __init__(self) -> None:
        self._given: dict[int, str] = {}

    def __getitem__(self, value: Value) -> str:
        return self._given.get(value.id, f"v{value.id}")

    def give(self, value: Value, name: str) -> None:
        self._given[value.id] = name

    def element(self, value: Value, slot: tuple[str, str]) -> str:
        """One element of a value as a tile that it broadcasts to sees it in `slot`."""
        if value.is_scalar:
            return self[value]
        i = "0" if value.shape[0] == 1 else slot[0]
        j = "0" if value.shape[1] == 1 else slot[1]
        return f"{self[value]}[{i}][{j}]"


def literal(value: bool | int | float, dtype: DType) -> str:
    """A constant of that dtype, rounded to f32 if a float."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype == "i32":
        number = (int(value) + 2**31) % 2**32 - 2**31
        return "(-2147483647 - 1)" if number == -(2**31) else f"({number})" if number < 0 else str(number)
    if dtype != "f32":
        return f"to_{dtype}({literal(value, 'f32')})"
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if math.isinf(rounded):
        return "INF" if rounded > 0 else "(-INF)"
    if math.isnan(rounded):
        return "(INF - INF)"
    text = f"{rounded!r}f"
    return f"({text})" if rounded < 0 or text.startswith("-") else text
