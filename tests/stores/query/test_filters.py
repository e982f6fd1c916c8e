import json
import operator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import Database
from stores.errors import InvalidQuery
from stores.query.filters import compile_filter
from stores.segment.columns import Column, field_value

WIDE = [2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1]
"""Where float64 no longer tells integers apart."""
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, 1e300])
    | st.sampled_from(WIDE)
    | st.sampled_from(["a", "b", "1"])
)
VALUE = SCALAR | st.lists(SCALAR, max_size=2)
METADATA = st.fixed_dictionaries(
    {}, optional={"x": VALUE, "y": VALUE, "n": st.fixed_dictionaries({}, optional={"z": VALUE})}
)
FIELD = st.sampled_from(["x", "y", "n.z", "never"])
ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
OPERAND = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), VALUE),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUE, max_size=3)),
    st.tuples(st.sampled_from(sorted(ORDER)), st.integers(-3, 3) | st.sampled_from(["a", "b", 0.5, *WIDE])),
    st.tuples(st.just("$exists"), st.booleans()),
)
CLAUSE = st.one_of(
    st.tuples(FIELD, VALUE),
    st.tuples(FIELD, st.lists(OPERAND, min_size=1, max_size=2).map(dict)),
)
FILTER = st.recursive(
    st.lists(CLAUSE, max_size=2).map(dict),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=4,
)


class Rows:
    """Metadata in a list, as a source of rows."""

    def __init__(self, metadata: list[dict[str, Any]]) -> None:
        self.count, self._metadata = len(metadata), metadata

    def column(self, field: str) -> Column:
        column = Column()
        column.extend(field_value(data, field) for data in self._metadata)
        return column


def same(value: Any, operand: Any) -> bool:
    return json.dumps(normal(value)) == json.dumps(normal(operand))


def normal(value: Any) -> Any:
    if isinstance(value, list):
        return [normal(item) for item in value]
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


def plainly(expression: dict, data: dict) -> bool:
    """The definition, one row at a time."""
    return all(plain_clause(key, value, data) for key, value in expression.items())


def plain_clause(key: str, value: Any, data: dict) -> bool:
    if key == "$and":
        return all(plainly(part, data) for part in value)
    if key == "$or":
        return any(plainly(part, data) for part in value)
    if key == "$not":
        return not plainly(value, data)
    present, found = plain_field(data, key)
    operators = value if isinstance(value, dict) else {"$eq": value}
    return all(plain_operator(name, operand, present, found) for name, operand in operators.items())


def plain_field(data: dict, path: str) -> tuple[bool, Any]:
    found: Any = data
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            return False, None
        found = found[key]
    return True, found


def plain_operator(name: str, operand: Any, present: bool, found: Any) -> bool:
    if name == "$exists":
        return present == operand
    if name in ("$ne", "$nin"):
        return not plain_operator({"$ne": "$eq", "$nin": "$in"}[name], operand, present, found)
    if not present:
        return False
    if name == "$in":
        return any(plain_operator("$eq", item, present, found) for item in operand)
    if name == "$eq":
        return same(found, operand) or (
            isinstance(found, list) and any(same(item, operand) for item in found)
        )
    texts, numbers = (str,), (int, float)
    comparable = any(type(found) in kind and type(operand) in kind for kind in (texts, numbers))
    return comparable and ORDER[name](found, operand)


@given(FILTER, st.lists(METADATA, max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_filter_is_its_definition_row_by_row(expression: dict, metadata: list[dict]) -> None:
    mask = compile_filter(expression)(Rows(metadata))
    assert mask.tolist() == [plainly(expression, data) for data in metadata]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ([], "expected an object"),
        ({"$nor": []}, "unknown operator \\$nor"),
        ({"x": {"$regex": "a"}}, "x: unknown operator \\$regex; use one of \\$eq"),
        ({"x": {"$gt": None}}, "x: \\$gt takes a number or a text"),
        ({"x": {"$gt": True}}, "\\$gt takes a number or a text"),
        ({"x": {"$in": "abc"}}, "\\$in takes a list"),
        ({"x": {"$exists": 1}}, "\\$exists takes true or false"),
        ({"$or": []}, "\\$or takes a list"),
        ({"$and": {"x": 1}}, "\\$and takes a list"),
        ({"$not": 3}, "expected an object"),
        ({1: 2}, "a field must be text"),
        ({"x": {"$eq": 1, "plain": 2}}, "unknown operator plain"),
    ],
)
def test_a_filter_that_means_nothing_says_why(expression, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        compile_filter(expression)


def test_a_filter_nested_without_end_is_refused() -> None:
    expression: dict = {"x": 1}
    for _ in range(100):
        expression = {"$not": expression}
    with pytest.raises(InvalidQuery, match="deep"):
        compile_filter(expression)


def test_a_bad_filter_is_refused_even_by_an_empty_collection(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database, pytest.raises(InvalidQuery):
        database.collection("docs", dim=2).search([1, 0], filter={"$what": 1})


def test_filters_follow_rows_that_come_after_the_first_query(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        docs = database.collection("docs", dim=2)
        for number in range(5):
            docs.upsert([f"{number}"], [[1, 0]], metadata=[{"tags": ["all", f"t{number}"]}])
            assert docs.count(filter={"tags": "all"}) == number + 1
            assert [hit.id for hit in docs.search([1, 0], filter={"tags": f"t{number}"})] == [f"{number}"]
            if number == 2:
                docs.flush()
