"""Reranking by a cross-encoder: each document is read together with the query, in one sequence."""

import threading
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from engine.batches import length_batches, padded, padding_mask
from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import encoder
from engine.models.encoder_config import EncoderConfig
from engine.ops.jit import compile
from engine.protocols import Float32, Progress
from engine.rerank.ranking import Ranking, check_request, ranking
from engine.shapes import sequence_buckets
from engine.text.tokenizer import TextPair
from engine.weights.checkpoint import Checkpoint

_USUAL = ((1, 64), (1, 128), (8, 128), (32, 128))
"""(batch, sequence) buckets of a question with passages."""


class CrossEncoder:
    """A reranker checkpoint. Safe to share between threads.

    A score is the sigmoid of the head's logit, in [0, 1]. A pair that is too long loses tokens of its
    longer text first, as with transformers.

    Example:
        >>> reranker = CrossEncoder(load_checkpoint(Path("bge-reranker-base")))
        >>> reranker.rank("what do tarsiers eat?", ["The bank is closed.", "They eat insects."]).results[0]
        RankedDocument(index=1, score=0.98)
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not isinstance(checkpoint.config, EncoderConfig) or checkpoint.config.head is None:
            raise UnsupportedModel(f"{checkpoint.name} has no classification head; use a reranker")
        if checkpoint.tokenizer is None:
            raise BadCheckpoint(f"{checkpoint.path}: has no tokenizer.json, so texts cannot be ranked")
        self.config = checkpoint.config
        self._tokenizer = checkpoint.tokenizer
        self._params = checkpoint.params
        self._buckets = sequence_buckets(self.config.max_seq_length)
        jit = jax.jit if checkpoint.quant == "f32" else compile
        self._program = jit(partial(_program, config=self.config))
        self._device = threading.Lock()

    def rank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> Ranking:
        """All documents or the best `top_n`. Raises InvalidRequest; see `check_request`."""
        check_request(query, documents, top_n)
        pairs = self._tokenizer.encode_pairs(query, documents, max_length=self.config.max_seq_length)
        logits = np.zeros(len(pairs), np.float32)
        for batch in length_batches([len(pair.ids) for pair in pairs], self._buckets):
            logits[batch] = self._run([pairs[i] for i in batch])
        tokens = sum(len(pair.ids) for pair in pairs)
        # Ranked by logits: the sigmoids of large ones are equal.
        return ranking(logits, "cross_encoder", tokens, top_n, scores=_sigmoid(logits))

    def warm(self, progress: Progress | None = None) -> None:
        """Compiles the programs of a question with passages ahead of the first request."""
        for done, (batch, length) in enumerate(_USUAL, start=1):
            zeros = [0] * min(length, self.config.max_seq_length)
            self._run([TextPair(zeros, zeros)] * batch)
            if progress:
                progress(done, len(_USUAL))

    def _run(self, pairs: Sequence[TextPair]) -> Float32:
        """Logits (len(pairs),) of pairs of at most max_seq_length tokens."""
        rows = [pair.ids for pair in pairs]
        ids = padded(rows, self._buckets, self._tokenizer.pad_id or 0)
        types = padded([pair.types for pair in pairs], self._buckets, 0)
        # RoBERTa's tokenizer numbers the texts of a pair; its table of types has one row for both.
        types = np.minimum(types, max(getattr(self.config, "type_vocab_size", 1) - 1, 0))
        with self._device:
            found = np.asarray(self._program(self._params, ids, padding_mask(rows, ids.shape), types))
        return found[: len(pairs), 0]


def _sigmoid(logits: Float32) -> Float32:
    """By tanh, which cannot overflow."""
    found: Float32 = (np.tanh(logits / np.float32(2)) + np.float32(1)) / np.float32(2)
    return found


def _program(
    params: encoder.Params, ids: jax.Array, mask: jax.Array, types: jax.Array, *, config: EncoderConfig
) -> jax.Array:
    return encoder.scores(params, config, ids, mask, types)
