"""Replies in any pieces: text stays text, calls come out with their arguments as they were written."""

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.text.tool_calls import CallArguments, CallStart, ToolCallParser, call_text


def parsed(text: str, cuts: list[int]) -> tuple[str, list[list[str]]]:
    parser = ToolCallParser()
    events = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    for first, last in itertools.pairwise(edges):
        events += parser.push(text[first:last])
    events += parser.end()
    said, calls = "", []
    for event in events:
        if isinstance(event, CallStart):
            assert event.index == len(calls)
            calls.append([event.name, ""])
        elif isinstance(event, CallArguments):
            calls[event.index][1] += event.text
        else:
            said += event
    return said, calls


ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.text('ab"\\{}[]<é', max_size=6) | st.integers(), lambda x: st.lists(x, max_size=3), max_leaves=4
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text("ab< \n", max_size=8),
    calls=st.lists(st.tuples(st.sampled_from(["f", "get_it"]), ARGUMENTS), max_size=3),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
def test_whatever_the_pieces_the_calls_are_the_ones_written(text, calls, cuts):
    written = text + "\n".join(call_text(name, arguments) for name, arguments in calls)
    said, found = parsed(written, cuts)
    assert said == text
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


def test_what_does_not_follow_the_form_stays_text():
    assert parsed("a <tool_call> b", [5]) == ("a <tool_call> b", [])
    assert parsed("a <tool_ca", [4]) == ("a <tool_ca", [])


def test_a_call_cut_off_by_the_length_gives_what_there_was():
    assert parsed('<tool_call>\n{"name": "f", "arguments": {"a": "b', []) == ("", [["f", '{"a": "b']])
