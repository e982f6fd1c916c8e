"""Constrained replies always parse: random schemas, sampled wildly, checked by an independent validator."""

import json
import math
import re
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.generate.constraint import LARGEST_EXACT as EXACT
from engine.generate.constraint import MOST_CHARACTERS, Constraint
from engine.generate.guide import Guide, GuideMaker
from engine.text.tool_calls import CallArguments, CallStart, Tool, ToolCallParser, tool_constraint
from engine.weights.checkpoint import Checkpoint, load_checkpoint
from tests.memory import within

SECONDS = 5.0
"""What the worst grammar may take to be refused, with room for a busy machine."""


@pytest.fixture(scope="module")
def checkpoint(smollm2_path: Path) -> Checkpoint:
    return load_checkpoint(smollm2_path, quant="int8")


@pytest.fixture(scope="module")
def maker(checkpoint: Checkpoint) -> GuideMaker:
    assert checkpoint.tokenizer is not None
    return GuideMaker(checkpoint.tokenizer, checkpoint.config.vocab_size, checkpoint.tokenizer.eos_ids)


def allowed(guide: Guide, vocabulary: int) -> np.ndarray:
    words = np.zeros(-(-vocabulary // 32), np.uint32)
    guide.allow(words)
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))


def sample(checkpoint: Checkpoint, guide: Guide, seed: int, most: int = 600) -> str | None:
    """A reply drawn evenly from all allowed tokens, wilder than any model; None if it has no end."""
    tokenizer = checkpoint.tokenizer
    assert tokenizer is not None
    random, text = np.random.default_rng(seed), b""
    for _ in range(most):
        if guide.finished:
            return text.decode()
        token = int(random.choice(allowed(guide, tokenizer.vocab_size)))
        if token in tokenizer.eos_ids:
            return text.decode()
        text += tokenizer.token_bytes(token)
        guide.advance(token)
        assert guide.error is None
    return None


WRITABLE = st.text(st.characters(codec="utf-8", max_codepoint=0x3FFFF), max_size=5)
"""SmolLM2's vocabulary lacks the bytes 0xF1 and up, with which characters beyond begin."""
SCALARS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-99, 99),
        st.integers(0, 500),
    ),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 12)),
    st.builds(
        lambda texts: {"enum": texts},
        st.lists(WRITABLE | st.integers(-EXACT, EXACT) | st.none(), min_size=1, max_size=4),
    ),
    st.sampled_from(["date", "uuid"]).map(lambda kind: {"type": "string", "format": kind}),
    st.just({"type": "string", "pattern": "^[A-Z]{2,4}-\\d{1,3}$"}),
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.text('abcé"\\ _', min_size=1, max_size=4)

    def build(properties: dict[str, dict[str, Any]], optional: int) -> dict[str, Any]:
        required = list(properties)[optional:]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    return st.builds(build, st.dictionaries(names, inner, max_size=3), st.integers(0, 2))


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        objects(inner)
        | st.builds(
            lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 3)
        )
        | st.lists(inner, min_size=1, max_size=3).map(lambda several: {"anyOf": several})
    ),
    max_leaves=6,
)


def test_what_the_vocabulary_cannot_spell_is_not_offered_or_ends_with_a_reason(maker, checkpoint):
    beyond = "ab\U00040000"
    either = maker.make(Constraint.json_schema({"enum": [beyond, "ok"]}))
    assert sample(checkpoint, either, 0) == '"ok"'
    alone = maker.make(Constraint.json_schema({"enum": [beyond]}))
    for _ in range(4):
        allowed(alone, checkpoint.tokenizer.vocab_size)
        if alone.error:
            break
        alone.advance(int(allowed(alone, checkpoint.tokenizer.vocab_size)[0]))
    assert alone.error == "no token of this model's vocabulary goes on as the grammar wants"


@settings(max_examples=60, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**31))
def test_random_schemas_sampled_wildly_give_valid_json(maker, checkpoint, schema: dict[str, Any], seed: int):
    text = sample(checkpoint, maker.make(Constraint.json_schema(schema)), seed)
    assert text is not None
    jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize("bound", [2**53 + 1, 2**63, 1e300, -(2**53) - 1, -(2**63) + 1, -(2**63), -1e19])
@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_bounds_that_no_float64_holds_are_kept_or_refused(maker, checkpoint, keyword, bound, kind):
    """The parser would let through what is beyond them; near -2^63 it overflows the stack of the process."""
    schema = {"type": kind, keyword: bound}
    for seed in range(3):
        try:
            guide = maker.make(Constraint.json_schema(schema))
        except InvalidRequest as refusal:
            assert "bound beyond 2^53" in str(refusal)
            assert (bound > 0) == ("inimum" in keyword)
            return
        if (text := sample(checkpoint, guide, seed)) is not None:
            jsonschema.validate(json.loads(text, parse_float=Decimal), schema)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), -(2**63) - 1, {"a": [2**60]}])
def test_integers_that_the_parser_cannot_tell_apart_are_refused(maker, value: Any):
    for schema in ({"const": value}, {"type": "array", "items": {"enum": [1, value]}}):
        with pytest.raises(InvalidRequest, match="beyond 2\\^53"):
            maker.make(Constraint.json_schema(schema))
    maker.make(Constraint.json_schema({"properties": {"const": {"type": "null"}}, "default": 2**60}))


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf])
def test_a_bound_that_is_no_json_is_refused(bound: float):
    with pytest.raises(InvalidRequest, match="no JSON"):
        Constraint.json_schema({"type": "number", "minimum": bound})


LONG = "ab" * 10_000


@pytest.mark.parametrize(
    "schema",
    [
        {"const": LONG},
        {"enum": [["a", LONG]]},
        {"type": "string", "pattern": LONG},
        {"properties": {LONG: {}}},
        {"anyOf": [{"patternProperties": {LONG: {}}}]},
        {"const": {LONG: 1}},
    ],
)
def test_long_texts_in_a_grammar_are_refused_at_once(schema):
    for build in (
        Constraint.json_schema,
        lambda _: Constraint.regex(LONG),
        lambda _: Constraint.choice([LONG]),
    ):
        with pytest.raises(InvalidRequest, match="text of 20000 characters"):
            build(schema)
    Constraint.json_schema({"type": "string", "description": LONG, "default": LONG})


@pytest.mark.parametrize("pattern", ["[0-9]{4}-[01][0-9]", "(yes|no)!?", "é{3}", "\\w{1,5} \\w{1,5}"])
def test_regular_expressions_match_whole(maker, checkpoint, pattern: str):
    for seed in range(5):
        text = sample(checkpoint, maker.make(Constraint.regex(pattern)), seed)
        assert text is not None and re.fullmatch(pattern, text)


def test_a_choice_is_one_of_the_texts(maker, checkpoint):
    texts = ["red", "dark red", 'say "hi"\n', "日本"]
    found = {sample(checkpoint, maker.make(Constraint.choice(texts)), seed) for seed in range(40)}
    assert found == set(texts)


def test_guides_of_one_grammar_are_apart(maker, checkpoint):
    first, second = maker.make(Constraint.choice(["ab"])), maker.make(Constraint.choice(["ab"]))
    assert sample(checkpoint, first, 0) == "ab"
    assert not second.finished
    assert sample(checkpoint, second, 1) == "ab"


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Constraint.regex("a("), "guided_regex cannot be used"),
        (lambda: Constraint.json_schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (lambda: Constraint.json_schema({"type": "strange"}), "response_format"),
        (lambda: Constraint.json_schema({"$ref": "#"}), "response_format"),
        (lambda: Constraint.json_schema({"enum": ["x" * 99] * 1000}), str(MOST_CHARACTERS)),
        (lambda: Constraint.choice([]), "guided_choice"),
        (lambda: Constraint.json_schema(nested(40)), "deeper"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(maker, build, match: str):
    with pytest.raises(InvalidRequest, match=match):
        maker.make(build())


def nested(depth: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": nested(depth - 1)}} if depth else {"type": "null"}


HOSTILE = {
    "wide rows": Constraint.json_schema(
        {
            "anyOf": [
                {"properties": {f"k{i}_{j}": {"pattern": "(a|b)*a(a|b){12}"} for j in range(30)}}
                for i in range(40)
            ]
        }
    ),
    "all of any of": Constraint.json_schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(8)]}
                for i in range(12)
            ]
        }
    ),
    "doubling": Constraint.json_schema(
        {
            "$defs": {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(30)}
            | {"a30": {}},
            "$ref": "#/$defs/a0",
        }
    ),
    "long": Constraint.json_schema({"type": "array", "minItems": 10**6, "items": {"minLength": 10**7}}),
    "exponential automaton": Constraint.regex("(a|b)*a(a|b){30}"),
    "nested counts": Constraint.regex("((a?){1000}){1000}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_takes_bounded_time_and_memory(maker, checkpoint, name: str):
    """It is refused, or works, or stops with an error: soon in any case."""
    with within(128 << 20):
        follow(maker, checkpoint, name)


def follow(maker: GuideMaker, checkpoint: Checkpoint, name: str) -> None:
    began = time.monotonic()
    try:
        guide = maker.make(HOSTILE[name])
    except InvalidRequest:
        return
    finally:
        assert time.monotonic() - began < SECONDS
    for _ in range(20):
        tokens = allowed(guide, checkpoint.config.vocab_size)
        assert time.monotonic() - began < SECONDS
        if guide.error or guide.finished or not len(tokens):
            break
        guide.advance(int(tokens[0]))


TOOLS = [
    Tool(
        "weather",
        "",
        {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 9}},
            "required": ["city"],
            "additionalProperties": False,
        },
    ),
    Tool("time", "", {"type": "object", "properties": {}, "additionalProperties": False}),
]


@pytest.mark.parametrize("parallel", [False, True])
def test_required_tool_calls_parse_and_fit_their_schema(maker, checkpoint, parallel: bool):
    constraint = tool_constraint(TOOLS, required=True, parallel=parallel)
    seen = set()
    for seed in range(12):
        text = sample(checkpoint, maker.make(constraint), seed, most=3000)
        assert text is not None
        calls = calls_of(text)
        assert len(calls) >= 1 and (parallel or len(calls) == 1)
        for name, arguments in calls:
            seen.add(name)
            jsonschema.validate(json.loads(arguments), {tool.name: tool for tool in TOOLS}[name].parameters)
    assert seen == {"weather", "time"}


def calls_of(text: str) -> list[tuple[str, str]]:
    parser, calls = ToolCallParser(), []
    for event in (*parser.push(text), *parser.end()):
        if isinstance(event, CallStart):
            calls.append((event.name, ""))
        elif isinstance(event, CallArguments):
            calls[event.index] = (calls[event.index][0], calls[event.index][1] + event.text)
    return calls


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("A plain answer with <b>tags</b>.", True),
        ('I look. <tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>', True),
        ('<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', True),
        ('<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>', False),
        ('<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>', False),
        ("<tool_call> but not really", False),
    ],
)
def test_optional_tool_calls_are_text_or_right(maker, checkpoint, text: str, fits: bool):
    guide = maker.make(tool_constraint(TOOLS, required=False, parallel=True))
    tokenizer = checkpoint.tokenizer
    assert tokenizer is not None
    for token in tokenizer.encode(text):
        if token not in allowed(guide, tokenizer.vocab_size):
            assert not fits
            return
        guide.advance(token)
    assert (tokenizer.eos_ids[0] in allowed(guide, tokenizer.vocab_size)) is fits
