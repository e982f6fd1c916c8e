"""Documents that last: parsed and embedded by the engine, kept and found by the store.

Here the two meet: `Library` gives `engine.documents.qa` its `Retriever` and `PageSource` out of two
collections. `passages` holds the cuts with their vectors; `documents` holds one record per file, written
last, so a document is there as a whole or not at all, whenever the process is killed.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from engine.documents.chunk import chunk_pages
from engine.documents.limits import ParseLimits
from engine.documents.parse import ParsedDocument, parse_document
from engine.errors import DocumentNotFound
from engine.protocols import Embedder, Float32, Passage, Progress, ScoredPassage
from stores import Database, Row

PAGE_BREAK = "\f"
_WRITE_BATCH = 512
_PAGES_IN_MEMORY = 64


@dataclass(frozen=True)
class DocumentRecord:
    """One ingested file. `created_at` is in Unix seconds, `bytes` is the file's size.

    `warnings` has one line for each page that could not be read and was left out.
    """

    id: str
    name: str
    media_type: str
    pages: int
    passages: int
    bytes: int
    created_at: int
    warnings: tuple[str, ...] = ()
    status: str = "ready"


class Library:
    """The documents of one database. Thread-safe: many may ask while one ingests."""

    def __init__(
        self, database: Database, embedder: Embedder, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._embedder = embedder
        self._clock = clock
        self._ingesting = threading.Lock()
        dim, model = embedder.dim, embedder.model_id
        self._documents = database.collection("documents", dim=dim, metric="cosine", model=model)
        self._passages = database.collection("passages", dim=dim, metric="cosine", model=model)
        self._records = {hit_id: self._read_record(hit_id) for hit_id in self._documents.ids()}
        self._drop_orphans()
        self._pages_of = lru_cache(maxsize=_PAGES_IN_MEMORY)(self._read_pages)

    def ingest(
        self, name: str, data: bytes, *, limits: ParseLimits | None = None, progress: Progress | None = None
    ) -> DocumentRecord:
        """Parses, cuts, embeds and stores one file; the same bytes under the same name are stored once.

        `progress` counts embedded passages. Raises the DocumentError family; nothing is stored then.
        """
        document_id = _document_id(name, data)
        with self._ingesting:
            if document_id in self._records:
                return self._records[document_id]
            parsed = parse_document(name, data, limits=limits or ParseLimits())
            passages = chunk_pages(parsed, document_id, self._embedder.token_spans)
            texts = [passage.text for passage in passages]
            vectors = self._embedder.embed(texts, role="document", progress=progress)
            for rows in _batches(len(passages)):
                self._write_passages(passages[rows], vectors[rows])
            record = DocumentRecord(
                document_id,
                name,
                parsed.media_type,
                pages=len(parsed.pages),
                passages=len(passages),
                bytes=len(data),
                created_at=int(self._clock()),
                warnings=parsed.warnings,
            )
            self._write_record(record, parsed, vectors)
            self._records[document_id] = record
            return record

    def documents(self) -> list[DocumentRecord]:
        """All documents, oldest first."""
        return sorted(self._records.values(), key=lambda record: (record.created_at, record.id))

    def document(self, document_id: str) -> DocumentRecord:
        try:
            return self._records[document_id]
        except KeyError:
            raise DocumentNotFound(f"no document {document_id!r}", param="document_id") from None

    def delete(self, document_id: str) -> None:
        """Forgets a document: first the record, which makes it vanish, then its passages."""
        with self._ingesting:
            record = self.document(document_id)
            self._documents.delete([document_id])
            del self._records[document_id]
            self._pages_of.cache_clear()
            self._passages.delete([_passage_id(document_id, index) for index in range(record.passages)])

    def page_text(self, document_id: str, page: int) -> str:
        """The text of one page, counted from 1. Raises DocumentNotFound."""
        record = self.document(document_id)
        if not 1 <= page <= record.pages:
            raise DocumentNotFound(f"{record.name} has pages 1 to {record.pages}, not {page}", param="page")
        return self._pages_of(document_id)[page - 1]

    def retrieve(
        self, vector: Float32, text: str, *, k: int, document_ids: Sequence[str] | None = None
    ) -> list[ScoredPassage]:
        """Vector and word search fused, as `engine.protocols.Retriever` asks."""
        if document_ids is not None:
            unknown = [document_id for document_id in document_ids if document_id not in self._records]
            if unknown:
                raise DocumentNotFound(f"no document {unknown[0]!r}", param="document_ids")
        chosen = None if document_ids is None else {"document_id": {"$in": list(document_ids)}}
        hits = self._passages.search(vector, k=k, filter=chosen, text=text)
        found = [(hit, _passage(hit.id, hit.metadata, hit.text)) for hit in hits]
        return [
            ScoredPassage(passage, hit.vector_score or 0.0)
            for hit, passage in found
            if passage.document_id in self._records
        ]

    def _write_passages(self, passages: Sequence[Passage], vectors: Float32) -> None:
        self._passages.upsert(
            [passage.id for passage in passages],
            vectors,
            metadata=[
                {
                    "document_id": passage.document_id,
                    "document": passage.document,
                    "page": passage.page,
                    "start": passage.start,
                    "end": passage.end,
                }
                for passage in passages
            ],
            texts=[passage.text for passage in passages],
        )

    def _write_record(self, record: DocumentRecord, parsed: ParsedDocument, vectors: Float32) -> None:
        metadata = {
            "name": record.name,
            "media_type": record.media_type,
            "pages": record.pages,
            "passages": record.passages,
            "bytes": record.bytes,
            "created_at": record.created_at,
            "warnings": list(record.warnings),
        }
        text = PAGE_BREAK.join(page.text for page in parsed.pages)
        self._documents.upsert([record.id], _mean_direction(vectors)[None], metadata=[metadata], texts=[text])

    def _read_record(self, document_id: str) -> DocumentRecord:
        metadata = dict(self._row(document_id).metadata)
        return DocumentRecord(id=document_id, warnings=tuple(metadata.pop("warnings")), **metadata)

    def _read_pages(self, document_id: str) -> tuple[str, ...]:
        return tuple((self._row(document_id).text or "").split(PAGE_BREAK))

    def _row(self, document_id: str) -> Row:
        [row] = self._documents.get([document_id])
        if row is None:
            raise DocumentNotFound(f"no document {document_id!r}", param="document_id")
        return row

    def _drop_orphans(self) -> None:
        """Passages of an ingestion or deletion that a crash cut short belong to no record."""
        orphans = [i for i in self._passages.ids() if i.rpartition(":")[0] not in self._records]
        for rows in _batches(len(orphans)):
            self._passages.delete(orphans[rows])


def _document_id(name: str, data: bytes) -> str:
    return "doc-" + hashlib.sha256(name.encode() + b"\0" + data).hexdigest()[:24]


def _passage_id(document_id: str, index: int) -> str:
    return f"{document_id}:{index:06d}"


def _passage(passage_id: str, metadata: dict[str, Any], text: str | None) -> Passage:
    return Passage(id=passage_id, text=text or "", **metadata)


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _WRITE_BATCH, count)) for start in range(0, count, _WRITE_BATCH))


def _mean_direction(vectors: Float32) -> Float32:
    """The unit mean of a document's passages: what the document as a whole is near to."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)
