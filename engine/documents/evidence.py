"""From retrieved passages to candidate sentences with what speaks for each: the features of an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.documents.lexical import (
    asks_number,
    coverage,
    has_number,
    rarity,
    terms,
    words,
)
from engine.documents.sentences import blocks, is_heading, is_statement, key_and_value, sentences_of
from engine.errors import RequestError
from engine.protocols import Embedder, Float32, PageSource, Passage, ScoredPassage

FEATURES = (
    "similarity",
    "passage_similarity",
    "heading_similarity",
    "coverage",
    "window_coverage",
    "passage_coverage",
    "no_number",
    "question",
    "fragment",
)
_LEADERS = re.compile(r"(?:\.\s?){4,}|…{2,}|(?:·\s?){4,}|_{4,}")
_DIGIT = re.compile(r"(?<!\w)\d")
_HEADING_REACH = (1.0, 0.85, 0.7, 0.5)
_MIN_WORDS = 4


@dataclass(frozen=True)
class Sentence:
    """One sentence of a page near a retrieved passage; offsets count characters of the page."""

    document_id: str
    page: int
    document: str
    start: int
    end: int
    text: str
    index: int
    """Its place among the sentences of the page."""
    block: int
    """The paragraph, heading, list item or table row it belongs to, numbered on the page."""
    header: str = ""
    """For the row of a table, the table's first row, which says what its figures are."""

    @property
    def reading(self) -> str:
        """What is compared with the question: a row of figures is read under its header."""
        return f"{self.header}: {self.text}" if self.header else self.text


@dataclass(frozen=True)
class Candidate:
    """A sentence that may answer, and its features in the order of `FEATURES`."""

    sentence: Sentence
    features: tuple[float, ...]


@dataclass
class PageText:
    """A page as the answer is checked against it: its text and its sentences."""

    text: str
    sentences: list[Sentence] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """All candidates for one question. `pages` is keyed by (document id, page)."""

    candidates: list[Candidate]
    pages: dict[tuple[str, int], PageText]


def gather(
    question: str,
    vector: Float32,
    passages: Sequence[ScoredPassage],
    source: PageSource,
    embedder: Embedder,
) -> Evidence:
    """The sentences of the passages, each page read once and each sentence embedded once.

    `vector` is the question's unit vector. A passage whose text is no longer on its page is left out.
    """
    pages: dict[tuple[str, int], PageText] = {}
    best: dict[tuple[str, int, int], tuple[Sentence, ScoredPassage]] = {}
    for scored in passages:
        page = _page(scored.passage, source, pages)
        if page is None or page.text[scored.passage.start : scored.passage.end] != scored.passage.text:
            continue
        for sentence in _within(page, scored.passage):
            key = (sentence.document_id, sentence.page, sentence.index)
            if key not in best or best[key][1].score < scored.score:
                best[key] = (sentence, scored)
    found = list(best.values())
    if not found:
        return Evidence([], pages)
    similarity = embedder.embed([sentence.reading for sentence, _ in found], role="document") @ vector
    return Evidence(_features(question, found, similarity, pages), pages)


def _page(passage: Passage, source: PageSource, pages: dict[tuple[str, int], PageText]) -> PageText | None:
    key = (passage.document_id, passage.page)
    if key not in pages:
        try:
            text = source.page_text(*key)
        except (KeyError, RequestError):
            return None
        pages[key] = PageText(text, _sentences(text, passage))
    return pages[key]


def _sentences(text: str, passage: Passage) -> list[Sentence]:
    """The sentences of a page without lines of a table of contents and page numbers."""
    found: list[Sentence] = []
    rows: list[str] = []
    for number, block in enumerate(blocks(text)):
        for start, end in sentences_of(text, block.start, block.end):
            piece = text[start:end]
            if _LEADERS.search(piece) or not any(map(str.isalpha, piece)):
                continue
            same = rows and not block.after_gap and ("\t" in piece) == ("\t" in rows[0])
            rows = [*(rows if same else []), piece] if _is_row(piece) else []
            under = rows[0] if len(rows) > 1 and not _DIGIT.search(rows[0]) and _is_figures(piece) else ""
            place = (passage.document_id, passage.page, passage.document, start, end)
            found.append(Sentence(*place, piece, len(found), number, under))
    return found


def _is_row(text: str) -> bool:
    return "\t" in text or (is_heading(text) and len(text.split()) >= _MIN_WORDS - 1)


def _is_figures(text: str) -> bool:
    return "\t" in text or _DIGIT.search(text) is not None


def _within(page: PageText, passage: Passage) -> list[Sentence]:
    return [s for s in page.sentences if s.start < passage.end and s.end > passage.start]


def _features(
    question: str,
    found: list[tuple[Sentence, ScoredPassage]],
    similarity: Float32,
    pages: dict[tuple[str, int], PageText],
) -> list[Candidate]:
    stems = {_key(sentence): set(words(sentence.reading)) for sentence, _ in found}
    scores = {_key(sentence): float(similarity[row]) for row, (sentence, _) in enumerate(found)}
    weights = rarity(terms(question), stems.values())
    wants_number = asks_number(question)
    passage_stems = {scored.passage.id: set(words(scored.passage.text)) for _, scored in found}
    candidates = []
    for sentence, scored in found:
        if _echoes(question, sentence.text):
            continue
        around = [stems.get((*_key(sentence)[:2], sentence.index + step), set()) for step in (-1, 0, 1)]
        own = coverage(weights, stems[_key(sentence)])
        apart = own == 0.0 and key_and_value(sentence.text) is not None
        features = (
            scores[_key(sentence)],
            scored.score,
            _heading_similarity(sentence, pages, scores),
            own,
            0.0 if apart else coverage(weights, set().union(*around)),
            coverage(weights, passage_stems[scored.passage.id]),
            float(wants_number and not has_number(sentence.text, besides=question)),
            float(sentence.text.endswith("?")),
            float(is_fragment(sentence.text) and not sentence.header),
        )
        candidates.append(Candidate(sentence, features))
    return candidates


def is_fragment(text: str) -> bool:
    """A heading, a page number, a running title: not a statement."""
    short = len(text.split()) < _MIN_WORDS and "\t" not in text
    return is_heading(text) or (short and not is_statement(text))


def _echoes(question: str, text: str) -> bool:
    """A value that the question already names ("Name: Ada" for "Where was Ada born?") answers nothing."""
    parts = key_and_value(text)
    return parts is not None and set(words(parts[1])) <= set(words(question))


def _key(sentence: Sentence) -> tuple[str, int, int]:
    return (sentence.document_id, sentence.page, sentence.index)


def _heading_similarity(
    sentence: Sentence, pages: dict[tuple[str, int], PageText], scores: dict[tuple[str, int, int], float]
) -> float:
    """How near the heading above is to the question, fading over the first sentences of its section."""
    document_id, page, index = _key(sentence)
    above = pages[document_id, page].sentences
    for share, at in zip(_HEADING_REACH, range(index - 1, -1, -1), strict=False):
        title = above[at].text
        if is_heading(title) or title.endswith("?"):
            return share * max(scores.get((document_id, page, at), 0.0), 0.0)
    return 0.0


def matrix(candidates: Sequence[Candidate]) -> Float32:
    """The features as an array (candidates, features)."""
    return np.asarray([candidate.features for candidate in candidates], dtype=np.float32)
