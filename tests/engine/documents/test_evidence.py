"""What ranking looks at: words that count, figures asked for, headings, contents lists; quote edges."""

import numpy as np
import pytest

from engine.documents.evidence import FEATURES, PageText, _sentences
from engine.documents.lexical import asks_number, coverage, has_number, rarity, terms, words
from engine.documents.quotes import MAX_QUOTE, quote_span, readable
from engine.documents.ranking import COEFFICIENTS, chance
from engine.protocols import Passage


def page_of(text: str) -> PageText:
    return PageText(text, _sentences(text, Passage("d:0", "d", "d.txt", 1, 0, len(text), text)))


def quoted(text: str, sentence: int) -> str:
    page = page_of(text)
    start, end = quote_span(page, page.sentences[sentence])
    return text[start:end]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("glued", "glue"),
        ("gluing", "glues"),
        ("knives’", "knives"),
        ("cities", "city"),
        ("Müller", "muller"),
        ("compres-\nsion", "compression"),
        ("stopped", "stopping"),
    ],
)
def test_forms_of_a_word_meet(one, other):
    assert words(one) == words(other)


def test_function_words_do_not_count_and_compounds_count_by_part():
    assert terms("What is the block-sorting of v1.2?") == ["block-sorting", "block", "sort", "v1.2", "v1"]


def test_rare_words_weigh_more_and_missing_ones_most():
    weights = rarity(["larch", "needl", "zebra"], [["larch"], ["larch", "needl"], ["larch"]])
    assert weights["larch"] < weights["needl"] < weights["zebra"]
    assert coverage(weights, {"larch"}) < coverage(weights, {"needl"}) < 1.0
    assert coverage(weights, set(weights)) == 1.0 and coverage({}, set()) == 0.5


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("How many oxen?", True),
        ("In what year did it end?", True),
        ("When was it built?", True),
        ("What is the default block size?", True),
        ("How is it done?", False),
        ("Who wrote it?", False),
    ],
)
def test_questions_for_a_figure(question, asks):
    assert asks_number(question) is asks


def test_figures_in_the_question_do_not_count_as_answers():
    assert has_number("It took ten yoke of oxen.") and has_number("in 1476")
    assert not has_number("It is 9 wide.", besides="Why 9?") and not has_number("No one knows.")


def test_lines_of_a_table_of_contents_are_left_out():
    page = page_of("Contents\n1. Woods . . . . . . . . 3\n2. Drying ........ 4\n\nWood moves with the air.")
    assert [sentence.text for sentence in page.sentences] == ["Contents", "Wood moves with the air."]


@pytest.mark.parametrize("gap", ["\t", " "])
def test_rows_of_figures_carry_their_header(gap):
    rows = (("Timber", "Density in kg/m3", "Price"), ("Larch", "590", "7 euros"), ("Yew", "670", "18 euros"))
    prose = "The table gives the density and the price of a sheet of each timber."
    page = page_of("\n".join([prose, *(gap.join(row) for row in rows)]))
    headers = [sentence.header for sentence in page.sentences]
    assert headers == ["", "", gap.join(rows[0]), gap.join(rows[0])]


def test_heading_and_lead_in_are_quoted_with_what_follows():
    filler = "The veneer lies between two boards of oak until the glue has set for good."
    assert quoted(f"How is it pressed?\n\n{filler}", 0).endswith("for good.")
    assert quoted(f"Pressing the panel\n\n{filler}", 0).endswith("for good.")
    assert quoted(f"{filler} You need:\n- A press.\n{filler}", 1).endswith("A press.")


def test_sentence_that_leans_back_is_quoted_with_the_one_before():
    text = "The harbour is the largest pattern of the course. " + "It has many pieces, " + "x " * 50 + "."
    assert quoted(text, 1).startswith("The harbour")


def test_short_sentence_is_quoted_with_the_rest_of_its_paragraph_only():
    assert quoted("Do not use oil. It darkens holly.\n\nNext.", 0) == "Do not use oil. It darkens holly."
    assert quoted("Do not use oil.\n\nNext is something else that is long enough.", 0) == "Do not use oil."


def test_quotes_are_bounded():
    text = "A very " + "very " * 300 + "long sentence."
    assert len(quoted(text, 0)) <= MAX_QUOTE


def test_quotes_read_on_one_line():
    assert readable("• to partici-\npate in  its\ndistribution") == "to participate in its distribution"


def test_every_feature_has_a_coefficient_and_chances_are_probabilities():
    assert tuple(COEFFICIENTS) == FEATURES
    assert chance(0.0) == 0.5 and 0 < chance(-30.0) < chance(30.0) <= 1 and np.isfinite(chance(-800.0))
