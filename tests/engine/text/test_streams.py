"""The detokeniser and the stop matcher give the same text however a stream is cut."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.text.detokenize import Detokenizer
from engine.text.stops import StopMatcher
from engine.text.tokenizer import Tokenizer


def one_byte(token_id: int) -> bytes:
    return bytes([token_id])


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=30), st.text(max_size=12).map(str.encode)))
def test_bytes_one_at_a_time_decode_as_they_do_together(data: bytes):
    detokenizer = Detokenizer(one_byte)
    pieces = [detokenizer.push(byte) for byte in data] + [detokenizer.flush()]
    assert "".join(pieces) == data.decode("utf-8", errors="replace")
    for piece in pieces:
        piece.encode()


def test_a_character_over_several_tokens_comes_out_once_and_whole(smollm2_tokenizer: Tokenizer):
    ids = smollm2_tokenizer.encode("日本🚀")
    detokenizer = Detokenizer(smollm2_tokenizer.token_bytes)
    pieces = [detokenizer.push(token) for token in ids]
    assert "".join(pieces) == "日本🚀"
    assert "" in pieces
    assert "�" not in "".join(pieces)
    assert detokenizer.flush() == ""


def test_an_unfinished_character_becomes_a_replacement_mark_at_the_end():
    detokenizer = Detokenizer(one_byte)
    assert [detokenizer.push(byte) for byte in "é".encode()[:1]] == [""]
    assert detokenizer.flush() == "�"


def test_control_tokens_add_no_text(smollm2_tokenizer: Tokenizer):
    detokenizer = Detokenizer(smollm2_tokenizer.token_bytes, smollm2_tokenizer.special_ids)
    assert detokenizer.push(1) == ""
    assert detokenizer.push(smollm2_tokenizer.encode("a")[0]) == "a"


def run(stops: Sequence[str], pieces: Sequence[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(piece) for piece in pieces)
    stopped = matcher.stopped
    return text + matcher.flush(), stopped


def cut_at_first_complete_stop(stops: Sequence[str], text: str) -> tuple[str, bool]:
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@settings(max_examples=200, deadline=None)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
    pieces=st.lists(st.text("abc", max_size=5), max_size=8),
)
def test_stop_strings_are_found_however_the_text_is_cut(stops: list[str], pieces: list[str]):
    assert run(stops, pieces) == cut_at_first_complete_stop(stops, "".join(pieces))


@pytest.mark.parametrize(
    ("stops", "pieces", "out"),
    [
        (["END"], ["one E", "ND two"], ["one ", ""]),
        (["END"], ["one E", "Nd two"], ["one ", "ENd two"]),
        (["aab"], ["aa", "a", "b"], ["", "a", ""]),
        (["x"], ["ab", "cxd", "e"], ["ab", "c", ""]),
        ([], ["ab", "c"], ["ab", "c"]),
        (["日本"], ["a日", "本b"], ["a", ""]),
    ],
)
def test_only_what_may_start_a_stop_is_held_back(stops: list[str], pieces: list[str], out: list[str]):
    matcher = StopMatcher(stops)
    assert [matcher.push(piece) for piece in pieces] == out


def test_held_text_is_given_at_the_end():
    matcher = StopMatcher(["stop"])
    assert matcher.push("a sto") == "a "
    assert matcher.flush() == "sto"
