import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.embeddings.embedder import TextEmbedder
from engine.errors import BadCheckpoint, UnsupportedModel
from engine.weights import load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
WORDS = ["happy", "dog", "sunny", "river", "engine", "paper", "violet", "winter", "seven", "cloud"]


class DictionaryCache:
    """protocols.EmbeddingCache over a dict; counts what it is asked."""

    def __init__(self) -> None:
        self.stored: dict[str, np.ndarray] = {}
        self.hits = 0

    def get_many(self, keys: Sequence[str]) -> list[np.ndarray | None]:
        found = [self.stored.get(key) for key in keys]
        self.hits += sum(vector is not None for vector in found)
        return found

    def put_many(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        self.stored.update(zip(keys, vectors, strict=True))


@pytest.fixture(scope="module")
def checkpoint(minilm_path):
    return load_checkpoint(minilm_path)


@pytest.fixture(scope="module")
def embedder(checkpoint) -> TextEmbedder:
    return TextEmbedder(checkpoint)


def text_of(length: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def test_the_published_similarities_of_minilm(embedder):
    person, *others = embedder.embed(
        [
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ]
    )
    np.testing.assert_allclose(others @ person, [0.6946, 0.9429, 0.2569], atol=1e-3)


def test_int8_vectors_point_the_same_way(embedder, minilm_path):
    quantised = TextEmbedder(load_checkpoint(minilm_path, quant="int8"))
    texts = [text_of(n, n) for n in (1, 5, 12)]
    assert (embedder.embed(texts) * quantised.embed(texts)).sum(1).min() > 0.995
    assert quantised.model_id != embedder.model_id


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 24), min_size=1, max_size=9))
def test_a_text_has_one_vector_in_any_batch_and_order(embedder, lengths):
    texts = [text_of(length, seed) for seed, length in enumerate(lengths)]
    together = embedder.embed(texts)
    assert together.dtype == np.float32 and together.shape == (len(texts), 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], vector, atol=1e-5)


def test_the_same_batch_gives_the_same_bits(embedder):
    texts = [text_of(n, n) for n in range(1, 12)]
    np.testing.assert_array_equal(embedder.embed(texts), embedder.embed(texts))


def test_no_texts_give_an_empty_array(embedder):
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.embed_counted([]).token_counts == ()


def test_long_texts_are_cut_at_256_tokens_not_at_the_tokenizers_128(embedder):
    long = text_of(600)
    assert embedder.embed_counted([long]).token_counts == (256,)
    words = long.split()
    same, other = embedder.embed([" ".join(words[:254]), " ".join(words[:126])])
    vector = embedder.embed([long])[0]
    np.testing.assert_allclose(vector, same, atol=1e-5)
    assert np.abs(vector - other).max() > 1e-3


def test_token_counts_include_the_special_tokens(embedder):
    assert embedder.embed_counted(["a happy person", ""]).token_counts == (5, 2)


def test_token_spans_cover_the_words(embedder):
    text = "Un-happy persons, 2026"
    spans = embedder.token_spans(text)
    assert [text[start:end] for start, end in spans][:3] == ["Un", "-", "happy"]


def test_what_is_cached_is_not_run_again(checkpoint):
    cache = DictionaryCache()
    cached = TextEmbedder(checkpoint, cache)
    texts = ["a happy dog", "a sunny day", "a happy dog"]
    first = cached.embed(texts)
    assert len(cache.stored) == 2 and cache.hits == 0
    np.testing.assert_array_equal(first[0], first[2])
    marked = np.full(384, 2, np.float32)
    cache.stored = dict.fromkeys(cache.stored, marked)
    np.testing.assert_array_equal(cached.embed(["a sunny day"]), marked[None])


def test_vectors_of_another_precision_are_not_taken_from_the_cache(checkpoint, minilm_path):
    cache = DictionaryCache()
    TextEmbedder(checkpoint, cache).embed(["a happy dog"])
    TextEmbedder(load_checkpoint(minilm_path, quant="int8"), cache).embed(["a happy dog"])
    assert len(cache.stored) == 2 and cache.hits == 0


def test_progress_counts_up_to_the_number_of_distinct_texts(embedder):
    seen: list[tuple[int, int]] = []
    embedder.embed(["dog"] * 3 + [text_of(20, n) for n in range(4)], progress=lambda *at: seen.append(at))
    assert seen[0] == (0, 5) and seen[-1] == (5, 5)
    assert seen == sorted(seen)


def test_threads_share_one_embedder(embedder):
    texts = [text_of(n % 9, n) for n in range(24)]
    expected = embedder.embed(texts)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda text: embedder.embed([text])[0], texts))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_models_that_cannot_embed_are_refused():
    with pytest.raises(UnsupportedModel, match="use an embedding model"):
        TextEmbedder(load_checkpoint(PARITY / "llama_gqa_tied"))
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json"):
        TextEmbedder(load_checkpoint(PARITY / "bert_minilm"))


def test_prompts_of_the_folder_are_put_before_queries_and_documents(minilm_path, tmp_path):
    folder = Path(shutil.copytree(minilm_path, tmp_path / "prompted"))
    settings = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    prompted, plain = (TextEmbedder(load_checkpoint(path)) for path in (folder, minilm_path))
    for role, written in (("query", "query: a dog"), ("document", "passage: a dog"), (None, "a dog")):
        np.testing.assert_array_equal(prompted.embed(["a dog"], role=role), plain.embed([written]))
        np.testing.assert_array_equal(plain.embed(["a dog"], role=role), plain.embed(["a dog"]))
    assert prompted.model_id != plain.model_id
