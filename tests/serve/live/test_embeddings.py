"""Embeddings over the wire are those of the process."""

import base64
from pathlib import Path

import numpy as np
import pytest

from engine import Engine

MODEL = "all-minilm-l6-v2"
TEXTS = ["a happy person", "a happy dog", "today is a sunny day", "ünïcödé 漢字 🎉", "x" * 300]


@pytest.fixture(scope="module")
def expected(minilm_path: Path) -> np.ndarray:
    return Engine.load(minilm_path).embed(TEXTS)


def test_they_equal_the_in_process_ones_up_to_rounding(client, expected):
    reply = client.embeddings.create(model=MODEL, input=TEXTS)
    vectors = np.array([item.embedding for item in reply.data], dtype=np.float32)
    # Bits are equal on some processors, on an EPYC 9004 they differ by 9e-8: XLA's float32 sums.
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=5e-7)
    assert [item.index for item in reply.data] == list(range(len(TEXTS)))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_floats_and_base64_hold_the_same_numbers(http, expected):
    body = {"model": MODEL, "input": TEXTS}
    floats = http.post("/v1/embeddings", json=body).json()["data"]
    coded = http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()["data"]
    for plain, packed, vector in zip(floats, coded, expected, strict=True):
        unpacked = np.frombuffer(base64.b64decode(packed["embedding"]), dtype="<f4")
        np.testing.assert_array_equal(unpacked, np.array(plain["embedding"], dtype=np.float32))
        np.testing.assert_allclose(unpacked, vector, atol=1e-5)


def test_one_text_and_token_ids_are_inputs_too(client, minilm_path: Path):
    text = client.embeddings.create(model=MODEL, input="a happy person")
    ids = Engine.load(minilm_path).tokenizer.encode("a happy person")
    tokens = client.embeddings.create(model=MODEL, input=ids)
    many = client.embeddings.create(model=MODEL, input=[ids, ids])
    np.testing.assert_allclose(tokens.data[0].embedding, text.data[0].embedding, atol=1e-5)
    assert len(many.data) == 2
    assert text.usage.prompt_tokens == len(ids) + 2


def test_a_text_that_is_too_long_is_cut_only_when_asked_to(client):
    long = "word " * 400
    reply = client.embeddings.create(model=MODEL, input=long, extra_body={"truncate": True})
    assert reply.usage.prompt_tokens == 256
    assert len(reply.data[0].embedding) == 384


def test_the_models_own_dimensions_may_be_named(client):
    assert len(client.embeddings.create(model=MODEL, input="a", dimensions=384).data[0].embedding) == 384
