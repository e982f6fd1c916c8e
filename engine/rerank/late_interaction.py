"""Reranking by late interaction (Khattab and Zaharia, 2020): every token has a vector, and each token of
the query counts by its nearest token of the document."""

import string
import threading
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from engine.batches import length_batches, padded, padding_mask
from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import encoder
from engine.models.encoder_config import EncoderConfig
from engine.ops.distance import max_sim
from engine.ops.jit import compile
from engine.protocols import Float32, Progress
from engine.rerank.ranking import Ranking, check_request, ranking
from engine.shapes import sequence_buckets
from engine.weights.checkpoint import Checkpoint

_USUAL = ((1, 64), (8, 128), (32, 128))
"""(batch, sequence) buckets of passages."""
_MASKS = ("[MASK]", "<mask>")


class LateInteraction:
    """A ColBERT checkpoint. Safe to share between threads.

    A score is the mean over the query's tokens of their highest cosine with a token of the document,
    in [-1, 1]: ColBERT's sum, divided by the same number for every document.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not isinstance(checkpoint.config, EncoderConfig) or checkpoint.colbert is None:
            raise UnsupportedModel(f"{checkpoint.name} has no vectors for tokens; use a ColBERT model")
        if checkpoint.tokenizer is None:
            raise BadCheckpoint(f"{checkpoint.path}: has no tokenizer.json, so texts cannot be ranked")
        self.config = checkpoint.config
        self.settings = checkpoint.colbert
        self._tokenizer = checkpoint.tokenizer
        self._params = checkpoint.params
        self._query_marker = self._token(checkpoint, self.settings.query_marker)
        self._document_marker = self._token(checkpoint, self.settings.document_marker)
        self._mask = self._token(checkpoint, *_MASKS)
        self._skipped = self._punctuation() if self.settings.skip_punctuation else np.zeros(0, np.int32)
        longest = min(self.settings.document_length, self.config.max_positions)
        self._buckets = sequence_buckets(longest)
        jit = jax.jit if checkpoint.quant == "f32" else compile
        self._read_query = jit(partial(_query_vectors, config=self.config))
        self._read_documents = jit(partial(_document_scores, config=self.config))
        self._device = threading.Lock()

    def rank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> Ranking:
        """All documents or the best `top_n`. Raises InvalidRequest; see `check_request`."""
        check_request(query, documents, top_n)
        asked = self._marked([query], self._query_marker, self._query_length)[0]
        rows = self._marked(documents, self._document_marker, self._buckets[-1])
        scores = np.zeros(len(rows), np.float32)
        if rows:
            vectors = self._query(asked)
            for batch in length_batches([len(row) for row in rows], self._buckets):
                scores[batch] = self._score(vectors, [rows[i] for i in batch])
        return ranking(scores, "late_interaction", len(asked) + sum(map(len, rows)), top_n)

    def warm(self, progress: Progress | None = None) -> None:
        """Compiles the programs of a question with passages ahead of the first request."""
        vectors = self._query([0, 0])
        for done, (batch, length) in enumerate(_USUAL, start=1):
            self._score(vectors, [[0] * min(length, self._buckets[-1])] * batch)
            if progress:
                progress(done, len(_USUAL))

    @property
    def _query_length(self) -> int:
        return min(self.settings.query_length, self.config.max_positions)

    def _token(self, checkpoint: Checkpoint, *names: str) -> int:
        ids = (self._tokenizer.token_id(name) for name in names)
        found = next((index for index in ids if index is not None), None)
        if found is None:
            raise BadCheckpoint(f"{checkpoint.path}: the tokenizer has no token {' or '.join(names)[:80]}")
        return found

    def _punctuation(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
        ids = (self._tokenizer.token_id(mark) for mark in string.punctuation)
        return np.array([index for index in ids if index is not None], np.int32)

    def _marked(self, texts: Sequence[str], marker: int, length: int) -> list[list[int]]:
        """Token rows of at most `length`, the marker after the first token."""
        rows = self._tokenizer.encode_batch(texts, add_special=True, max_length=length - 1)
        return [[*row[:1], marker, *row[1:]] for row in rows]

    def _query(self, row: list[int]) -> jax.Array:
        """Vectors (query_length, dim) of a query's tokens and of the [MASK]s that fill it up."""
        ids = np.full((1, self._query_length), self._mask, np.int32)
        ids[0, : len(row)] = row
        seen = padding_mask([ids[0] if self.settings.attend_to_masks else row], ids.shape)
        with self._device:
            vectors: jax.Array = self._read_query(self._params, ids, seen)
        return vectors

    def _score(self, vectors: jax.Array, rows: list[list[int]]) -> Float32:
        ids = padded(rows, self._buckets, self._tokenizer.pad_id or 0)
        real = padding_mask(rows, ids.shape)
        counted = real.astype(bool) & ~np.isin(ids, self._skipped)
        with self._device:
            found = np.asarray(self._read_documents(self._params, vectors, ids, real, counted))
        return found[: len(rows)]


def _query_vectors(
    params: encoder.Params, ids: jax.Array, mask: jax.Array, *, config: EncoderConfig
) -> jax.Array:
    return encoder.token_vectors(params, config, ids, mask)[0]


def _document_scores(
    params: encoder.Params,
    query: jax.Array,
    ids: jax.Array,
    mask: jax.Array,
    counted: jax.Array,
    *,
    config: EncoderConfig,
) -> jax.Array:
    return max_sim(query, encoder.token_vectors(params, config, ids, mask), counted)
