"""Pages to passages: exact slices of one page, no longer than the embedding model reads well."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.documents.parse import ParsedDocument
from engine.documents.sentences import Span, blocks, is_heading, sentences_of, trim
from engine.protocols import Passage

TokenSpans = Callable[[str], list[tuple[int, int]]]
MAX_TOKENS = 126
"""With the two tokens an encoder puts around a text this fills its bucket of 128 and no larger one."""
OVERLAP = 0


def chunk_pages(
    document: ParsedDocument,
    document_id: str,
    spans: TokenSpans,
    *,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP,
) -> list[Passage]:
    """Cuts every page at paragraph, else sentence, else word ends; never across pages.

    Each passage has `text == page.text[start:end]`, no whitespace at its edges and at most `max_tokens`
    tokens by `spans`; together they hold every character of the document that is not whitespace.
    Ids are `document_id:000000` and on, in reading order.

    Args:
        spans: character span of each token of a text, as `Embedder.token_spans`.
        max_tokens: at least 1. A single character of several tokens is the one thing that may exceed it.
        overlap: up to this many tokens of whole sentences are repeated at the start of the next passage.
    """
    if max_tokens < 1 or not 0 <= overlap < max_tokens:
        raise ValueError(f"max_tokens {max_tokens} must be positive and above overlap {overlap}")
    passages: list[Passage] = []
    for page in document.pages:
        for start, end in _cut_page(page.text, spans, max_tokens, overlap):
            passages.append(
                Passage(
                    id=f"{document_id}:{len(passages):06d}",
                    document_id=document_id,
                    document=document.name,
                    page=page.number,
                    start=start,
                    end=end,
                    text=page.text[start:end],
                )
            )
    return passages


@dataclass(frozen=True)
class _Unit:
    """The smallest piece that a passage is packed from: a sentence, or part of one that is too long."""

    start: int
    end: int
    tokens: int
    opens: bool
    """A paragraph begins here."""


def _cut_page(text: str, spans: TokenSpans, max_tokens: int, overlap: int) -> Iterator[Span]:
    packed = _pack(list(_units(text, spans, max_tokens)), text, max_tokens, overlap)
    for start, end in packed:
        yield from _fit(text, start, end, spans, max_tokens)


def _units(text: str, spans: TokenSpans, max_tokens: int) -> Iterator[_Unit]:
    starts = [start for start, end in spans(text) if end > start]

    def tokens(start: int, end: int) -> int:
        return bisect_left(starts, end) - bisect_left(starts, start)

    for block in blocks(text):
        opens = block.after_gap or is_heading(text[block.start : block.end])
        for start, end in sentences_of(text, block.start, block.end):
            for piece in _shorten(text, start, end, tokens, max_tokens):
                yield _Unit(*piece, tokens(*piece), opens)
                opens = False


def _shorten(
    text: str, start: int, end: int, tokens: Callable[[int, int], int], max_tokens: int
) -> Iterator[Span]:
    """Halves a sentence at the word end nearest to its middle until each part fits."""
    if tokens(start, end) <= max_tokens or end - start <= 1:
        yield start, end
        return
    for half in _halves(text, start, end):
        yield from _shorten(text, *half, tokens, max_tokens)


def _halves(text: str, start: int, end: int) -> list[Span]:
    middle = (start + end) // 2
    before, after = text.rfind(" ", start, middle), text.find(" ", middle, end)
    line = text.rfind("\n", start, middle)
    cuts = [cut for cut in (before, after, line) if start < cut < end]
    cut = min(cuts, key=lambda at: abs(at - middle)) if cuts else middle
    halves = (trim(text, start, cut), trim(text, cut, end))
    return [half for half in halves if half[0] < half[1]]


def _pack(units: list[_Unit], text: str, max_tokens: int, overlap: int) -> Iterator[Span]:
    """Greedy: fills a passage, closes it early at a paragraph once it is half full."""
    current: list[_Unit] = []
    used = 0
    for unit in units:
        full = used + unit.tokens > max_tokens
        if current and (full or (unit.opens and 2 * used >= max_tokens)):
            carried = _carried_heading(current, text) if full else []
            kept = current[: len(current) - len(carried)]
            yield kept[0].start, kept[-1].end
            current = carried or _tail(kept, min(overlap, max_tokens - unit.tokens))
            if sum(piece.tokens for piece in current) + unit.tokens > max_tokens:
                if carried:
                    yield carried[0].start, carried[-1].end
                current = []
            used = sum(piece.tokens for piece in current)
        current.append(unit)
        used += unit.tokens
    if current:
        yield current[0].start, current[-1].end


def _carried_heading(current: list[_Unit], text: str) -> list[_Unit]:
    """A heading at the end of a full passage belongs to the next one."""
    last = current[-1]
    heading = len(current) > 1 and is_heading(text[last.start : last.end])
    return [last] if heading else []


def _tail(units: list[_Unit], most: int) -> list[_Unit]:
    kept: list[_Unit] = []
    for unit in reversed(units[1:]):
        most -= unit.tokens
        if most < 0:
            break
        kept.insert(0, unit)
    return kept


def _fit(text: str, start: int, end: int, spans: TokenSpans, max_tokens: int) -> Iterator[Span]:
    """A slice may tokenise to more than its share of the page; then it is halved."""
    if end - start <= 1 or len(spans(text[start:end])) <= max_tokens:
        yield start, end
        return
    for half in _halves(text, start, end):
        yield from _fit(text, *half, spans, max_tokens)
