"""A library in memory: the smallest thing that satisfies `Retriever` and `PageSource`, by cosine alone."""

from collections.abc import Sequence

import numpy as np

from engine.documents.chunk import chunk_pages
from engine.documents.parse import parse_document
from engine.protocols import Embedder, Float32, Passage, ScoredPassage


class MemoryLibrary:
    """Documents are known by their names, which are their ids as well."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self.passages: list[Passage] = []
        self.pages: dict[tuple[str, int], str] = {}
        self.vectors = np.zeros((0, embedder.dim), np.float32)

    def add(self, name: str, data: bytes) -> None:
        document = parse_document(name, data)
        self.pages |= {(name, page.number): page.text for page in document.pages}
        passages = chunk_pages(document, name, self.embedder.token_spans)
        self.passages += passages
        added = self.embedder.embed([passage.text for passage in passages])
        self.vectors = np.concatenate([self.vectors, added])

    def page_text(self, document_id: str, page: int) -> str:
        return self.pages[document_id, page]

    def retrieve(
        self, vector: Float32, text: str, *, k: int, document_ids: Sequence[str] | None = None
    ) -> list[ScoredPassage]:
        scores = self.vectors @ vector
        ranked = [
            ScoredPassage(self.passages[row], float(scores[row]))
            for row in np.argsort(-scores)
            if document_ids is None or self.passages[row].document_id in document_ids
        ]
        return ranked[:k]
