"""Which characters of a page to quote for a sentence, and how a quotation reads as an answer."""

import re
from collections.abc import Sequence

from engine.documents.evidence import PageText, Sentence
from engine.documents.sentences import is_heading

MAX_QUOTE = 600
_MAX_ADDED = 2
_SHORT_QUOTE = 110
_LEANS_BACK = re.compile(
    r"(?:It|Its|This|These|They|Their|That|Those|Such|He|She|His|Her|Both|However|Therefore|Thus|Hence|So|But"
    r"|Instead|Otherwise|In (?:this|that) (?:case|way))\b"
)
_LINE_HYPHEN = re.compile(r"(?<=[^\W\d_])-\n(?=[a-zà-ÿ])")
_BULLET = re.compile(r"^(?:[-*•◦▪‣·●○–—]|\(?\d{1,3}[.)])\s+")
_SPACE = re.compile(r"\s+")


def quote_span(page: PageText, sentence: Sentence) -> tuple[int, int]:
    """The sentence with the neighbours it cannot be understood without, at most `MAX_QUOTE` characters.

    A heading, a question or a lead-in (":") is followed by what it announces; a sentence that leans on
    the one before it ("It ...", "However ...") gets that one too; a short one is followed by the rest of
    its paragraph, where the reason or the figure often stands.
    """
    everything = page.sentences
    first = last = sentence.index
    while last - sentence.index < _MAX_ADDED and _goes_on(everything, first, last):
        last += 1
    if _LEANS_BACK.match(sentence.text) and _same_block(everything, first - 1, first):
        first -= 1
    while first < last and everything[last].end - everything[first].start > MAX_QUOTE:
        first, last = (first + 1, last) if first < sentence.index else (first, last - 1)
    return everything[first].start, min(everything[last].end, everything[first].start + MAX_QUOTE)


def _goes_on(everything: Sequence[Sentence], first: int, last: int) -> bool:
    if last + 1 >= len(everything) or everything[last].header:
        return False
    if everything[last].text.endswith((":", "?")) or is_heading(everything[last].text):
        return True
    short = everything[last].end - everything[first].start < _SHORT_QUOTE
    return short and _same_block(everything, last, last + 1)


def _same_block(everything: Sequence[Sentence], one: int, other: int) -> bool:
    return one >= 0 and everything[one].block == everything[other].block


def readable(quote: str) -> str:
    """A quotation on one line: words broken at a line end are joined, a leading bullet is dropped."""
    joined = _LINE_HYPHEN.sub("", quote)
    return _BULLET.sub("", _SPACE.sub(" ", joined).strip())
