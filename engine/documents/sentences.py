"""Where sentences begin and end in the text of a page, as character spans.

Rules, no model: punctuation for prose, and line structure for what is not prose (headings, list items,
table rows). A page from a PDF breaks lines where the paper ends, a page from HTML where a block ends; the
length of the lines tells one from the other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

Span = tuple[int, int]

_BULLET = re.compile(r"\s*(?:[-*+•◦▪‣·●○–—]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_MARK = re.compile(r"[-*+•◦▪‣·●○–—]\s")
_NUMBERED_HEADING = re.compile(r"\s*(?:\d+\.)+\d*\s+\S|\s*(?:Chapter|Section|Part|Appendix)\s+[\dA-Z]+\b")
_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s|$))|[。！？]+[」』）]*")
_VERB = re.compile(
    r"\b(?:is|are|was|were|isn't|aren't|wasn't|weren't|has|have|had|does|did|can|cannot|can't|could|will|won't"
    r"|would|must|may|might|should)\b"
)
_ASKING = re.compile(r"(?:\d[\d.]*\s+)?(?:how|why|what|when|where|which|who|whose|whether|if)\b", re.I)
_KEY_AND_VALUE = re.compile(
    r"(?:\[[^\]\n]{1,30}\]\s*)?(?!(?:chapter|section|part|appendix|figure|fig|table|step|note)\b)"
    r"([^\W\d_][\w ()/'’.-]{0,39}):\s+\S",
    re.I,
)
_OPTION = re.compile(r"--?\w[\w-]*(?:[ =,]\S+)*?(?:\s+\S+){2}")
_OPENING = "\"'“‘«([¿¡-–—•*"
_UNFINISHED = tuple(",;:-–—&/(")
_ALWAYS_SHORT = "e.g i.e cf vs dr mr mrs ms prof st sr jr pp eds approx ca resp viz ph.d op incl"
_SHORT_BEFORE_NUMBER = "no nos fig figs eq sec ch vol art ref p jan feb mar apr jun jul aug sep oct nov dec"
_TITLES = frozenset(_ALWAYS_SHORT.split())
_NUMBERED = frozenset(_SHORT_BEFORE_NUMBER.split())
_HTML_LINE = 180
_SHORT_SHARE = 0.7
_ENDED_SHARE = 0.85
_MIN_WIDTH = 40


@dataclass(frozen=True)
class Block:
    """A run of lines that belong together: a paragraph, a heading, a list item or a table row.

    `after_gap` says that a blank line, or the start of the page, comes before it.
    """

    start: int
    end: int
    after_gap: bool


def blocks(text: str) -> list[Block]:
    """The blocks of a page in order; together they hold all its text but whitespace at their edges."""
    found: list[Block] = []
    lines = list(_lines(text))
    width = _line_width(lines)
    start = 0
    gap = True
    for index, (begin, end) in enumerate(lines):
        if text[begin:end].isspace() or begin == end:
            gap = True
            start = index + 1
            continue
        following = lines[index + 1] if index + 1 < len(lines) else None
        if following is None or _breaks(text, (begin, end), following, width):
            span = trim(text, lines[start][0], end)
            found.append(Block(*span, after_gap=gap))
            start, gap = index + 1, False
    return found


def sentences(text: str) -> list[Span]:
    """Trimmed, ordered, disjoint spans that hold every character of `text` that is not whitespace."""
    return [span for block in blocks(text) for span in sentences_of(text, block.start, block.end)]


def sentences_of(text: str, start: int, end: int) -> Iterator[Span]:
    """The sentences of one block `text[start:end]`."""
    begin = start
    for match in _END.finditer(text, start, end):
        if match.end() < end and _is_end(text, begin, match, end):
            span = trim(text, begin, match.end())
            if span[0] < span[1]:
                yield span
            begin = match.end()
    span = trim(text, begin, end)
    if span[0] < span[1]:
        yield span


def trim(text: str, start: int, end: int) -> Span:
    """The span without whitespace at its edges."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def is_heading(text: str) -> bool:
    """A short line, not of a list or table, that neither ends as a sentence does nor states something."""
    short = len(text) <= 90 and "\n" not in text and "\t" not in text
    return short and text[-1:] not in ".!?;,:" and not _MARK.match(text) and not is_statement(text)


def is_statement(text: str) -> bool:
    """Whether a line without a full stop says something by itself, as lines of notes, lists and slides do.

    It has a finite verb (an auxiliary, the only ones that can be told without a model), or it gives a value
    to a key ("Port: 8844"), or it explains a command's option ("-q  print nothing").
    """
    if key_and_value(text) or _OPTION.match(text):
        return True
    return _VERB.search(text) is not None and not _ASKING.match(text)


def key_and_value(text: str) -> tuple[str, str] | None:
    """The parts of a line such as "Port: 8844" or "[09:14] Mira: on my way", None for any other."""
    found = _KEY_AND_VALUE.match(text)
    return (found[1], text[found.end() - 1 :]) if found else None


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for part in text.split("\n"):
        yield start, start + len(part)
        start += len(part) + 1


def _line_width(lines: list[Span]) -> int:
    """How long a full line is: the 90th percentile of the lines that hold something."""
    lengths = sorted(end - begin for begin, end in lines if end > begin)
    return max(lengths[int(0.9 * len(lengths))], _MIN_WIDTH) if lengths else _MIN_WIDTH


def _breaks(text: str, line: Span, following: Span, width: int) -> bool:
    """Whether the line end between two lines is meant, not just where the paper ended."""
    this, after = text[slice(*line)], text[slice(*following)]
    if not after.strip():
        return True
    if "\t" in this or "\t" in after or len(this) > _HTML_LINE:
        return True
    if _BULLET.match(after) or _NUMBERED_HEADING.match(after):
        return not this.rstrip().endswith("-")
    first = after.lstrip()[0]
    if first.islower() or this.rstrip().endswith(_UNFINISHED):
        return False
    share = _ENDED_SHARE if this.rstrip().endswith((".", "!", "?")) else _SHORT_SHARE
    return len(this) < share * width


def _is_end(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    """Whether a mark ends a sentence, by the word before it and the character after it."""
    if match[0].rstrip("\"'”’»)]」』）")[-1] in "!?。！？":
        return True
    following = text[match.end() : end].lstrip()[:1]
    if following.islower():
        return False
    before = text[max(begin, match.start() - 24) : match.start()].split()
    word = before[-1].lower().lstrip("([\"'“‘") if before else ""
    if word in _TITLES or (word in _NUMBERED and following.isdigit()):
        return False
    list_number = word.isdigit() and len(before) == 1 and match.start() - begin <= len(word) + 3
    initial = len(word) == 1 and word.isalpha() and word != "i"
    if list_number or initial:
        return False
    return following.isupper() or following.isdigit() or following in _OPENING or not following.isascii()
