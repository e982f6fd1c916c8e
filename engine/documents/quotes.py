"""Which characters of a page to quote for a sentence, and how a quotation reads as an answer."""

import re

from engine.documents.evidence import PageText, Sentence, is_fragment

MAX_QUOTE = 600
_MAX_ADDED = 2
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
    the one before it ("It ...", "However ...") gets that one too.
    """
    everything = page.sentences
    place = next(at for at, other in enumerate(everything) if other.index == sentence.index)
    first = last = place
    while last - place < _MAX_ADDED and last + 1 < len(everything) and _announces(everything[last].text):
        last += 1
    leans = place > 0 and _LEANS_BACK.match(sentence.text)
    if leans and not is_fragment(everything[place - 1].text) and not everything[place - 1].text.endswith("?"):
        first -= 1
    while first < last and everything[last].end - everything[first].start > MAX_QUOTE:
        first, last = (first + 1, last) if first < place else (first, last - 1)
    return everything[first].start, min(everything[last].end, everything[first].start + MAX_QUOTE)


def readable(quote: str) -> str:
    """A quotation on one line: words broken at a line end are joined, a leading bullet is dropped."""
    joined = _LINE_HYPHEN.sub("", quote)
    return _BULLET.sub("", _SPACE.sub(" ", joined).strip())


def _announces(text: str) -> bool:
    return text.endswith((":", "?")) or is_fragment(text)
