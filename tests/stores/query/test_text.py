import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import Database, Options
from stores.query.hybrid import fuse
from stores.query.postings import Postings, words

VOCABULARY = ["sun", "moon", "star", "stars", "über", "42", "the", "cities"]
TEXT = st.none() | st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join)


def naive_bm25(documents: dict[str, str | None], query: str) -> dict[str, float]:
    """The textbook formula, k1 = 1.2, b = 0.75, over plain lists."""
    tokens = {id: words(text) for id, text in documents.items() if text}
    tokens = {id: found for id, found in tokens.items() if found}
    if not tokens:
        return {}
    mean = sum(map(len, tokens.values())) / len(tokens)
    scores: dict[str, float] = {}
    for id, found in tokens.items():
        counts = Counter(found)
        for word in set(words(query)) & set(counts):
            frequency = sum(word in other for other in tokens.values())
            idf = math.log(1 + (len(tokens) - frequency + 0.5) / (frequency + 0.5))
            norm = 1.2 * (1 - 0.75 + 0.75 * len(found) / mean)
            scores[id] = scores.get(id, 0) + idf * counts[word] * 2.2 / (counts[word] + norm)
    return scores


@given(
    st.lists(st.tuples(st.integers(0, 15), TEXT), min_size=1, max_size=40),
    st.sets(st.integers(0, 15), max_size=5),
    st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=4).map(" ".join),
)
@settings(max_examples=25, deadline=None)
def test_bm25_is_the_textbook_formula_over_living_rows(tmp_path_factory, writes, deleted, query) -> None:
    folder = tmp_path_factory.mktemp("text")
    with Database.open(folder, options=Options(seal_rows=10, background=False)) as database:
        docs = database.collection("docs", dim=1, metric="dot")
        documents: dict[str, str | None] = {}
        for place, (id, text) in enumerate(writes):
            docs.upsert([str(id)], [[1]], texts=[text])
            documents[str(id)] = text
            if place % 13 == 0:
                docs.search(None, text=query)  # builds what later rows and merges must extend
        docs.delete([str(id) for id in deleted])
        for id in deleted:
            documents.pop(str(id), None)
        expected = naive_bm25(documents, query)
        for _ in range(2):
            hits = docs.search(None, 50, text=query)
            assert {hit.id: pytest.approx(hit.score) for hit in hits} == expected
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            docs.compact()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The CITIES of Gaul's bosses", ["the", "city", "of", "gaul", "s", "boss"]),
        ("Straße CAFÉ café", ["strasse", "cafe", "cafe"]),
        ("gas bus this glasses pass boxes caches", ["gas", "bus", "this", "glass", "pass", "box", "cache"]),
        ("x_y-z 3.14 IPv6", ["x", "y", "z", "3", "14", "ipv6"]),
        ("東京 tower", ["東", "京", "tower"]),
        ("Москва", ["москва"]),
        ("ﬁle", ["file"]),
        (" ... ", []),
    ],
)
def test_words_are_folded_alike_in_texts_and_queries(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.lists(TEXT, max_size=12), st.data())
@settings(max_examples=50, deadline=None)
def test_merged_postings_are_those_of_the_kept_texts(texts: list[str | None], data) -> None:
    cut = data.draw(st.integers(0, len(texts)))
    parts, kept_texts, sources = (texts[:cut], texts[cut:]), [], []
    for part in parts:
        kept = sorted(data.draw(st.sets(st.integers(0, max(0, len(part) - 1)))) if part else [])
        postings = Postings()
        postings.extend(part)
        sources.append((postings.freeze(), np.array(kept, np.int32)))
        kept_texts += [part[row] for row in kept]
    direct = Postings()
    direct.extend(kept_texts)
    merged = Postings.merged(sources)
    assert merged.vocabulary() == direct.vocabulary()
    assert merged.lengths.tolist() == direct.lengths.tolist()
    for word in direct.vocabulary():
        assert merged.find(word).rows.tolist() == direct.find(word).rows.tolist()
        assert merged.find(word).counts.tolist() == direct.find(word).counts.tolist()


def test_fusion_sums_reciprocal_ranks_and_breaks_ties_by_the_first_ranking() -> None:
    fused = fuse([[1, 2, 3], [3, 4]], 4)
    assert fused == [
        (3, pytest.approx(1 / 63 + 1 / 61)),
        (1, pytest.approx(1 / 61)),
        (2, pytest.approx(1 / 62)),
        (4, pytest.approx(1 / 62)),
    ]
    assert fuse([[], []], 3) == []


def test_hybrid_search_obeys_the_filter_in_both_parts(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        docs = database.collection("docs", dim=2)
        docs.upsert(["a", "b"], [[1, 0], [0, 1]], metadata=[{"n": 1}, {"n": 2}], texts=["sun", "sun"])
        assert [hit.id for hit in docs.search([1, 0], text="sun", filter={"n": 2})] == ["b"]
        assert [hit.id for hit in docs.search(None, text="sun", filter={"n": 2})] == ["b"]
