"""What the engine asks of others, as small protocols.

The engine never imports the store: `stores` satisfies `Retriever` and `EmbeddingCache`, the
language models satisfy `Embedder` and `TextGenerator`, and `serve.runtime` joins them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (done, total) as long work advances."""
Role: TypeAlias = Literal["query", "document"]
"""What a text is to a search. Some embedding models want another prompt before each."""


@dataclass(frozen=True)
class Passage:
    """A slice of one page: `text == page_text[start:end]`, offsets in characters of that page.

    `page` is 1-based and physical; `document` is the name shown to people.
    """

    id: str
    document_id: str
    document: str
    page: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ScoredPassage:
    passage: Passage
    score: float
    """Cosine of the passage's and the question's embedding, in [-1, 1]."""


class Retriever(Protocol):
    def retrieve(
        self, vector: Float32, text: str, *, k: int, document_ids: Sequence[str] | None = None
    ) -> list[ScoredPassage]:
        """The k best passages for a unit query vector (dim,) and its words, best first.

        With `document_ids`, only passages of those documents; None means all.
        """


class PageSource(Protocol):
    def page_text(self, document_id: str, page: int) -> str:
        """The whole text of one page, as quotations are checked against it. KeyError if unknown."""


class EmbeddingCache(Protocol):
    def get_many(self, keys: Sequence[str]) -> list[Float32 | None]:
        """One unit vector (dim,) or None for each key, in order."""

    def put_many(self, keys: Sequence[str], vectors: Float32) -> None:
        """Stores vectors (len(keys), dim)."""


class Embedder(Protocol):
    @property
    def dim(self) -> int: ...

    @property
    def model_id(self) -> str:
        """Name and content hash of the checkpoint: vectors with different ids never mix."""

    def embed(
        self, texts: Sequence[str], *, role: Role | None = None, progress: Progress | None = None
    ) -> Float32:
        """Unit vectors (len(texts), dim) in the order given."""

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Character span of each token of `text`, without special tokens: for chunking by length."""


class TextGenerator(Protocol):
    def complete(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> str:
        """The model's greedy reply to a chat, as one string."""
