"""How dtypes, constants and elementwise ops are spelled in the host's C++.

Values are `float` or `int`: f16 and bf16 values are floats that hold a rounded number, bools are 0 or 1.
"""

import math

import numpy as np

from dsl.ir.ops import BinaryKind, UnaryKind
from dsl.ir.types import DType, Storage

STORED: dict[Storage, str] = {
    "f32": "float",
    "f16": "uint16_t",
    "bf16": "uint16_t",
    "i32": "int32_t",
    "i8": "int8_t",
    "u8": "uint8_t",
    "i4": "uint8_t",
    "u4": "uint8_t",
}

_UNARY: dict[UnaryKind, str] = {
    "exp": "exp_f32({})",
    "log": "log_f32({})",
    "tanh": "tanh_f32({})",
    "rsqrt": "(1.0f / __builtin_sqrtf({}))",
    "sqrt": "__builtin_sqrtf({})",
    "erf": "erf_f32({})",
    "round": "__builtin_rintf({})",
    "popcount": "popcount({})",
    "not": "!{}",
}
_BINARY: dict[BinaryKind, str] = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "div": "({} / {})",
    "idiv": "idiv({}, {})",
    "mod": "mod({}, {})",
    "max": "({0} > {1} ? {0} : {1})",
    "min": "({0} < {1} ? {0} : {1})",
    "ge": "({} >= {})",
    "lt": "({} < {})",
    "eq": "({} == {})",
    "and": "({} & {})",
    "or": "({} | {})",
    "xor": "({} ^ {})",
    "shr": "shr({}, {})",
}


def c_type(dtype: DType) -> str:
    return "int" if dtype in ("i32", "bool") else "float"


def constant(value: bool | int | float, dtype: DType) -> str:
    if c_type(dtype) == "int":
        return "(-2147483647 - 1)" if value == -(2**31) else str(int(value))
    number = float(np.float32(value))
    if math.isnan(number):
        return '__builtin_nanf("")'
    if math.isinf(number):
        return "__builtin_inff()" if number > 0 else "(-__builtin_inff())"
    return f"({number.hex()}f)"


def unary(kind: UnaryKind, dtype: DType, operand: str) -> str:
    if kind == "abs":
        return (
            f"__builtin_fabsf({operand})" if dtype == "f32" else f"({operand} < 0 ? -{operand} : {operand})"
        )
    return _UNARY[kind].format(operand)


def binary(kind: BinaryKind, left: str, right: str) -> str:
    return _BINARY[kind].format(left, right)


def cast(operand: str, source: DType, target: DType) -> str:
    if source == target:
        return operand
    if target == "bool":
        return f"({operand} != 0)"
    if target == "i32":
        return f"to_i32({operand})" if c_type(source) == "float" else operand
    if target == "f32":
        return f"(float){operand}"
    return f"of_{target}(to_{target}((float){operand}))"


def loaded(element: str, storage: Storage) -> str:
    """The value of a stored element."""
    return f"of_{storage}({element})" if storage in ("f16", "bf16") else element


def to_store(value: str, storage: Storage) -> str:
    if storage in ("f16", "bf16"):
        return f"to_{storage}({value})"
    return value if storage in ("f32", "i32") else f"({STORED[storage]}){value}"
