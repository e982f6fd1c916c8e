"""Passages are exact, bounded, complete; sentences end where a reader says they do."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.documents.chunk import chunk_pages
from engine.documents.parse import Page, ParsedDocument
from engine.documents.sentences import sentences


def word_spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w{1,5}|[^\w\s]", text)]


def document(*pages: str) -> ParsedDocument:
    return ParsedDocument("d.txt", "text/plain", "0", tuple(Page(n, text) for n, text in enumerate(pages, 1)))


PAGES = st.lists(
    st.lists(
        st.sampled_from(
            [
                "Larch. ",
                "An oak-tree",
                "e.g. ",
                "x" * 30,
                " ",
                "\n",
                "\n\n",
                "- item\n",
                "1. Cut. ",
                "日本。",
                "a\tb\n",
            ]
        ),
        max_size=60,
    ).map("".join),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(PAGES, st.integers(1, 40), st.integers(0, 10))
def test_passages_are_exact_bounded_and_complete(pages, max_tokens, overlap):
    passages = chunk_pages(
        document(*pages), "id", word_spans, max_tokens=max_tokens, overlap=min(overlap, max_tokens - 1)
    )
    seen = {number: set() for number in range(1, len(pages) + 1)}
    for passage in passages:
        page = pages[passage.page - 1]
        assert passage.text == page[passage.start : passage.end] == passage.text.strip() != ""
        assert len(word_spans(passage.text)) <= max_tokens
        seen[passage.page].update(range(passage.start, passage.end))
    for number, page in enumerate(pages, 1):
        assert {at for at, char in enumerate(page) if not char.isspace()} <= seen[number]
    assert [passage.id for passage in passages] == [f"id:{n:06d}" for n in range(len(passages))]
    assert [(p.page, p.start) for p in passages] == sorted((p.page, p.start) for p in passages)


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="aB1 .!?\n\t-\"'é。", max_size=120))
def test_sentences_are_disjoint_ordered_and_complete(text):
    spans = sentences(text)
    covered = [at for start, end in spans for at in range(start, end)]
    assert covered == sorted(set(covered))
    assert {at for at, char in enumerate(text) if not char.isspace()} <= set(covered)
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in spans)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("See e.g. Dr. Smith at 3.5 mm. Version v1.2 is out. J. S. Bach wrote it. Is it? Yes! Good.", 6),
        ("No. 5 is next. The answer is no. Then nails, screws, etc. He said “stop.” Then he left.", 5),
        ("It cost approx. 5 USD in fig. 3 (see sec. 2). See section 4.2. Use Python 3.11 now.", 3),
        ("Steps\n1. Cut the veneer.\n2. Glue it.\n- dry it\n- sand it", 5),
        ("Wood\tAge\nOak\t40\nLarch\t20", 3),
        ("これは木です。美しい木です。", 2),
        ("Heading\n\nOne sentence over\ntwo lines.", 2),
    ],
)
def test_sentence_ends(text, count):
    assert len(sentences(text)) == count, [text[start:end] for start, end in sentences(text)]


def test_lines_broken_by_the_paper_are_one_sentence_and_headings_are_their_own():
    text = (
        "A paragraph whose first line goes on to the margin and\n"
        "then wraps to another line. The next one is also long.\n"
        "New heading\n"
        "The paragraph after the heading goes to the margin too."
    )
    found = [text[start:end] for start, end in sentences(text)]
    assert found[0].endswith("wraps to another line.") and "New heading" in found and len(found) == 4


def test_passages_break_at_paragraphs_and_headings_lead_their_section():
    paragraph = "The larch sheds its needles in autumn. " * 3
    pages = f"{paragraph}\n\nOaks\n\n{paragraph}"
    passages = chunk_pages(document(pages), "id", word_spans, max_tokens=45)
    assert [passage.text.split()[0] for passage in passages] == ["The", "Oaks"]


def test_overlap_repeats_whole_sentences():
    text = " ".join(f"Sentence number {n} is here." for n in range(20))
    passages = chunk_pages(document(text), "id", word_spans, max_tokens=40, overlap=12)
    assert all(right.start < left.end for left, right in pairwise(passages))
    assert all(passage.text.startswith("Sentence number") for passage in passages)


def test_impossible_sizes_are_refused():
    for sizes in ({"max_tokens": 0}, {"max_tokens": 4, "overlap": 4}):
        with pytest.raises(ValueError, match="max_tokens"):
            chunk_pages(document("x"), "id", word_spans, **sizes)
