"""Metadata filters: a JSON expression, checked once, then evaluated on columns.

    {"year": {"$gte": 2020}, "lang": {"$in": ["en", "de"]}, "$not": {"tags": "draft"}}

All keys of an object must hold. `$and`, `$or` take lists, `$not` one expression. A bare value means
`$eq`. Nested fields are written with dots. Types count: 1 equals 1.0, but neither true nor "1"; an
order comparison is false between types. A list holds for `$eq` and `$in` if it or any of its items
does. `$ne` and `$nin` are the opposites, so rows without the field satisfy them.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stores.errors import InvalidQuery
from stores.segment.columns import LARGEST_EXACT, MISSING, Bools
from stores.segment.view import Rows

Filter = Mapping[str, Any]
Test = Callable[[Rows], Bools]
Predicate = Callable[[Any], bool]
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_FIELD_OPERATORS = ("$eq", "$ne", "$in", "$nin", "$exists", *_ORDER)
_MAX_DEPTH = 32


def compile_filter(expression: Filter, depth: int = 0) -> Test:
    """A function from rows to bool (rows.count,). InvalidQuery names what is wrong and what is known."""
    if depth > _MAX_DEPTH:
        raise InvalidQuery(f"filter: nested more than {_MAX_DEPTH} deep")
    if not isinstance(expression, Mapping):
        raise InvalidQuery(f"filter: expected an object like {{'field': value}}, not {expression!r}")
    return _all([_clause(key, value, depth + 1) for key, value in expression.items()])


def _clause(key: str, value: Any, depth: int) -> Test:
    if not isinstance(key, str):
        raise InvalidQuery(f"filter: a field must be text, not {key!r}")
    if key in ("$and", "$or"):
        if not isinstance(value, list | tuple) or not value:
            raise InvalidQuery(f"filter: {key} takes a list of expressions")
        parts = [compile_filter(part, depth) for part in value]
        return _all(parts) if key == "$and" else _any(parts)
    if key == "$not":
        inner = compile_filter(value, depth)
        return lambda rows: ~inner(rows)
    if key.startswith("$"):
        raise InvalidQuery(
            f"filter: unknown operator {key}; here $and, $or, $not or a field name is expected"
        )
    return _field(key, value)


def _all(tests: list[Test]) -> Test:
    def test(rows: Rows) -> Bools:
        mask = np.ones(rows.count, np.bool_)
        for part in tests:
            mask &= part(rows)
        return mask

    return test


def _any(tests: list[Test]) -> Test:
    def test(rows: Rows) -> Bools:
        mask = np.zeros(rows.count, np.bool_)
        for part in tests:
            mask |= part(rows)
        return mask

    return test


def _field(field: str, condition: Any) -> Test:
    has_operators = isinstance(condition, Mapping) and any(str(key).startswith("$") for key in condition)
    operators = condition if has_operators else {"$eq": condition}
    if operators and all(name in _ORDER and _is_exact(operand) for name, operand in operators.items()):
        return _all([_compared(field, _ORDER[name], operand) for name, operand in operators.items()])
    predicates = [_predicate(field, name, operand) for name, operand in operators.items()]

    def test(rows: Rows) -> Bools:
        return rows.column(field).where(lambda value: all(check(value) for check in predicates), rows.count)

    return test


def _is_exact(operand: Any) -> bool:
    return _kind(operand) == "number" and abs(operand) <= LARGEST_EXACT


def _compared(field: str, order: Callable[[Any, Any], Any], operand: float) -> Test:
    return lambda rows: rows.column(field).compares(order, operand, rows.count)


def _predicate(field: str, name: str, operand: Any) -> Predicate:
    if name in ("$eq", "$ne"):
        return _negated(name == "$ne", lambda value: _holds(value, operand))
    if name in ("$in", "$nin"):
        if not isinstance(operand, list | tuple | set | frozenset):
            raise InvalidQuery(f"filter: {field}: {name} takes a list, not {operand!r}")
        return _negated(name == "$nin", _member(operand))
    if name == "$exists":
        if not isinstance(operand, bool):
            raise InvalidQuery(f"filter: {field}: $exists takes true or false, not {operand!r}")
        return lambda value: (value is not MISSING) == operand
    if name in _ORDER:
        return _ordered(field, name, operand)
    raise InvalidQuery(f"filter: {field}: unknown operator {name}; use one of {', '.join(_FIELD_OPERATORS)}")


def _negated(negate: bool, predicate: Predicate) -> Predicate:
    return (lambda value: not predicate(value)) if negate else predicate


def _ordered(field: str, name: str, operand: Any) -> Predicate:
    kind = _kind(operand)
    if kind not in ("number", "text"):
        raise InvalidQuery(f"filter: {field}: {name} takes a number or a text, not {operand!r}")
    compare = _ORDER[name]
    return lambda value: _kind(value) == kind and compare(value, operand)


def _member(operands: Any) -> Predicate:
    """Whether a value is one of many: by hashing where they can be, so long lists stay fast."""
    plain = {(_kind(operand), operand) for operand in operands if _kind(operand) != "other"}
    others = [operand for operand in operands if _kind(operand) == "other"]

    def one(value: Any) -> bool:
        kind = _kind(value)
        if kind != "other":
            return (kind, value) in plain
        return any(_same(value, operand) for operand in others)

    return lambda value: one(value) or (isinstance(value, list) and any(map(one, value)))


def _holds(value: Any, operand: Any) -> bool:
    return _same(value, operand) or (isinstance(value, list) and any(_same(item, operand) for item in value))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if value is None:
        return "null"
    return "text" if isinstance(value, str) else "other"


def _same(value: Any, operand: Any) -> bool:
    """Equality as JSON has it, at any depth."""
    if isinstance(value, list) and isinstance(operand, list | tuple):
        return len(value) == len(operand) and all(map(_same, value, operand))
    if isinstance(value, Mapping) and isinstance(operand, Mapping):
        return value.keys() == operand.keys() and all(_same(value[key], operand[key]) for key in value)
    return _kind(value) == _kind(operand) and value is not MISSING and bool(value == operand)
