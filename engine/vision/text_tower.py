"""Texts to unit vectors in the space of a model's images."""

import threading
from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import numpy as np

from engine.batches import length_batches, padded
from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import clip
from engine.models.clip_config import ClipConfig
from engine.ops.distance import unit
from engine.ops.jit import compile
from engine.protocols import Float32
from engine.shapes import sequence_buckets
from engine.weights.checkpoint import Checkpoint

_REMEMBERED = 16
"""Lists of labels whose vectors are kept: they come again with each image. A thousand take 3 MB."""


class TextTower:
    """The text side of CLIP or SigLIP. Safe to share between threads; longer texts are cut."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not isinstance(checkpoint.config, ClipConfig):
            raise UnsupportedModel(f"{checkpoint.name} reads no texts; use a CLIP or SigLIP model")
        if checkpoint.tokenizer is None:
            raise BadCheckpoint(f"{checkpoint.path}: has no tokenizer.json, so texts cannot be embedded")
        self.config = checkpoint.config.text
        self._tokenizer = checkpoint.tokenizer
        self._params = checkpoint.params
        longest = self.config.max_positions
        # SigLIP has only seen texts that are filled up to the end.
        self._buckets = sequence_buckets(longest) if self.config.causal else (longest,)
        jit = jax.jit if checkpoint.quant == "f32" else compile
        self._program = jit(partial(_program, config=checkpoint.config))
        self._device = threading.Lock()
        self._known = lru_cache(_REMEMBERED)(self._embedded)

    def embed(self, texts: Sequence[str]) -> Float32:
        """Unit vectors (len(texts), dim), in the order given."""
        return self._embedded(tuple(texts))

    def remembered(self, texts: Sequence[str]) -> Float32:
        """As `embed`, of texts that will be asked for again; not to be changed."""
        return self._known(tuple(texts))

    def warm(self) -> None:
        """Compiles the programs of short texts, alone and as a list of labels."""
        for rows in (1, 8, 32):
            self._run([[0] * min(8, self.config.max_positions)] * rows)

    def _embedded(self, texts: tuple[str, ...]) -> Float32:
        longest = self.config.max_positions
        rows = self._tokenizer.encode_batch(texts, add_special=True, max_length=longest)
        vectors = np.zeros((len(texts), self.config.projection), np.float32)
        for batch in length_batches([len(row) for row in rows], self._buckets):
            vectors[batch] = self._run([rows[i] for i in batch])
        return vectors

    def _run(self, rows: list[list[int]]) -> Float32:
        ids = padded(rows, self._buckets, self.config.pad_id)
        with self._device:
            return np.asarray(self._program(self._params, ids))[: len(rows)]


def _program(params: clip.Params, ids: jax.Array, *, config: ClipConfig) -> jax.Array:
    return unit(clip.text_features(params, config, ids))
