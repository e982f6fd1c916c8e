"""Texts to unit vectors: cached, deduplicated, sorted by length and run in padded batches."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from engine.batches import batch_rows, length_batches, padded, padding_mask
from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import encoder
from engine.models.encoder_config import EncoderConfig
from engine.ops.jit import compile
from engine.protocols import EmbeddingCache, Float32, Progress, Role
from engine.shapes import sequence_buckets
from engine.weights.checkpoint import Checkpoint

_QUESTIONS, _PASSAGES = (16, 32, 64), (16, 32, 64, 128)
"""Sequence buckets of a question, which comes alone, and of sentences and passages, which fill batches."""


@dataclass(frozen=True)
class Embedded:
    """`vectors` float32 (n, dim), unit length; `token_counts` of each text as run, special ones included."""

    vectors: Float32
    token_counts: tuple[int, ...]


class TextEmbedder:
    """An encoder checkpoint as `protocols.Embedder`. Safe to share between threads.

    The same text gives the same vector in any batch within 1e-5, and the same bits in the same batch.
    Texts longer than `max_seq_length` tokens are cut.

    Example:
        >>> embedder = TextEmbedder(load_checkpoint(Path("all-minilm-l6-v2")))
        >>> embedder.embed(["a happy person", "a happy dog"]).shape
        (2, 384)
    """

    def __init__(self, checkpoint: Checkpoint, cache: EmbeddingCache | None = None) -> None:
        if not isinstance(checkpoint.config, EncoderConfig):
            raise UnsupportedModel(f"{checkpoint.name} generates text; use an embedding model")
        if checkpoint.kind != "encoder":
            raise UnsupportedModel(f"{checkpoint.name} is a reranker; use an embedding model")
        if checkpoint.tokenizer is None:
            raise BadCheckpoint(f"{checkpoint.path}: has no tokenizer.json, so texts cannot be embedded")
        self.config = checkpoint.config
        self.model_id = f"{checkpoint.name}:{checkpoint.quant}@{checkpoint.identity}"
        self._tokenizer = checkpoint.tokenizer
        self._params = checkpoint.params
        self._prompts = checkpoint.prompts
        self._cache = cache
        self._buckets = sequence_buckets(self.config.max_seq_length)
        # Nothing is expanded from float32 weights, and XLA's default scheduler is then up to a fifth faster.
        jit = jax.jit if checkpoint.quant == "f32" else compile
        self._program = jit(partial(_program, config=self.config))
        self._device = threading.Lock()

    @property
    def dim(self) -> int:
        return self.config.hidden_size

    @property
    def max_seq_length(self) -> int:
        return self.config.max_seq_length

    def embed(
        self, texts: Sequence[str], *, role: Role | None = None, progress: Progress | None = None
    ) -> Float32:
        """Unit vectors (len(texts), dim) in the order given; `role` as in `prompted`."""
        return self.embed_counted(texts, role=role, progress=progress).vectors

    def prompted(self, texts: Sequence[str], role: Role | None = None) -> list[str]:
        """The texts as the model reads them: after the prompt that its configuration has for the role."""
        prompt = self._prompts.of(role)
        return [prompt + text for text in texts]

    def embed_counted(
        self, texts: Sequence[str], *, role: Role | None = None, progress: Progress | None = None
    ) -> Embedded:
        """As `embed`, with the number of tokens of each text, its prompt's included."""
        if not texts:
            return Embedded(np.zeros((0, self.dim), np.float32), ())
        texts = self.prompted(texts, role)
        rows = self._tokenizer.encode_batch(texts, add_special=True, max_length=self.max_seq_length)
        first_of = {text: i for i, text in reversed(list(enumerate(texts)))}
        vectors = np.zeros((len(texts), self.dim), np.float32)
        self._fill(vectors, rows, {i: self._key(text) for text, i in first_of.items()}, progress)
        order = np.array([first_of[text] for text in texts])
        return Embedded(vectors[order], tuple(map(len, rows)))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Character span of each token of `text`, without special tokens."""
        return self._tokenizer.spans(text)

    def warm(self, progress: Progress | None = None) -> None:
        """Compiles the programs of a question and of a document's passages ahead of the first request."""
        usual = [*((1, length) for length in _QUESTIONS), *((batch_rows(n), n) for n in _PASSAGES)]
        for done, (batch, length) in enumerate(usual, start=1):
            self._run([[0] * min(length, self.max_seq_length)] * batch)
            if progress:
                progress(done, len(usual))

    def _fill(
        self, vectors: Float32, rows: list[list[int]], keys: dict[int, str], progress: Progress | None
    ) -> None:
        """Writes the vectors of the rows that `keys` names, from the cache or by running them."""
        todo = self._from_cache(vectors, keys)
        done = len(keys) - len(todo)
        report = progress or (lambda done, total: None)
        report(done, len(keys))
        for batch in self._batches(rows, todo):
            found = self._run([rows[i] for i in batch])
            vectors[batch] = found
            if self._cache is not None:
                self._cache.put_many([keys[i] for i in batch], found)
            done += len(batch)
            report(done, len(keys))

    def _from_cache(self, vectors: Float32, keys: dict[int, str]) -> list[int]:
        """Fills in what the cache has; gives the indices it has not."""
        if self._cache is None:
            return list(keys)
        found = self._cache.get_many(list(keys.values()))
        missing = []
        for i, vector in zip(keys, found, strict=True):
            if vector is None:
                missing.append(i)
            else:
                vectors[i] = vector
        return missing

    def _batches(self, rows: list[list[int]], indices: list[int]) -> Iterator[list[int]]:
        for batch in length_batches([len(rows[i]) for i in indices], self._buckets):
            yield [indices[place] for place in batch]

    def _run(self, rows: list[list[int]]) -> Float32:
        """Unit vectors (len(rows), dim) of token rows of at most max_seq_length."""
        ids = padded(rows, self._buckets, self._tokenizer.pad_id or 0)
        with self._device:
            vectors = np.asarray(self._program(self._params, ids, padding_mask(rows, ids.shape)))
        return vectors[: len(rows)]

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self.model_id}|{text}".encode()).hexdigest()


def _program(params: encoder.Params, ids: jax.Array, mask: jax.Array, *, config: EncoderConfig) -> jax.Array:
    return encoder.embed(params, config, ids, mask)
