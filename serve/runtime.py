"""What a request may reach: the loaded models and the library, joined once at start.

Everything here blocks; the routes call it from worker threads.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engine import Engine
from engine.documents.answer import Answer
from engine.documents.limits import ParseLimits
from engine.documents.qa import DocumentQA
from engine.errors import FeatureDisabled, ModelNotFound, UnsupportedInput
from engine.protocols import Progress
from engine.registry import cache_dir
from serve.config import Settings
from serve.gallery import Gallery
from serve.library import DocumentRecord, Library
from stores import Database
from stores.cache.embeddings import EmbeddingTable

ModelKind = Literal["chat", "embedding", "rerank", "vision"]
Stage = Callable[[str, int, int], None]
"""Called with (what is being done, done, total) while the runtime starts."""


@dataclass(frozen=True)
class ModelInfo:
    """One model as `/v1/models` lists it; `created` in Unix seconds."""

    id: str
    kind: ModelKind
    created: int
    owned_by: str = "tarsia"


class Runtime:
    """The models and documents of one process. Thread-safe; `close()` ends it.

    `chat` may be None: then answers are extractive only and chat is refused as an unknown model.
    Without a `reranker` documents are ranked only by an embedding model that the request names.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        chat: Engine | None,
        embedding: Engine,
        database: Database,
        reranker: Engine | None = None,
        vision: Engine | None = None,
    ) -> None:
        self.settings = settings
        self._chat = chat
        self._embedding = embedding
        self._reranker = reranker
        self._vision = vision
        self._database = database
        self._started = int(time.time())
        self._scratch: Path | None = None
        self._lock = threading.Lock()
        self._gallery: Gallery | None = None
        self.library = Library(database, embedding.embedder)
        self._qa = DocumentQA(self.library, self.library, embedding.embedder, chat)
        self.ready = False

    @classmethod
    def open(cls, settings: Settings, *, with_chat: bool = True, stage: Stage | None = None) -> "Runtime":
        """Loads the configured models and opens the data folder.

        Raises:
            ModelError: a model is missing or damaged.
            StoreError: the data folder is damaged, or in use by another process.
        """
        report = stage or (lambda what, done, total: None)
        report("open the data folder", 0, 1)
        database = Database.open(settings.data_dir)
        try:
            return cls._load(settings, database, with_chat, report)
        except BaseException:
            database.close()
            raise

    @classmethod
    def _load(cls, settings: Settings, database: Database, with_chat: bool, report: Stage) -> "Runtime":
        report(f"load {settings.embedding_model}", 0, 1)
        embedding = Engine.load(settings.embedding_model, cache=EmbeddingTable(cache_dir() / "embeddings.db"))
        _expect(embedding, "encoder", settings.embedding_model, "embedding_model")
        chat = None
        if with_chat:
            report(f"load {settings.chat_model}", 0, 1)
            chat = Engine.load(
                settings.chat_model,
                quant=settings.quant,
                max_slots=settings.max_slots,
                max_context=settings.max_context,
                max_queue=settings.max_queue,
                kv_bytes=settings.kv_bytes,
                speculate=settings.speculate,
            )
            _expect(chat, "decoder", settings.chat_model, "chat_model")
        reranker = None
        if settings.rerank_model:
            report(f"load {settings.rerank_model}", 0, 1)
            reranker = Engine.load(settings.rerank_model)
            _expect(reranker, "reranker", settings.rerank_model, "rerank_model")
        vision = None
        if settings.vision_model:
            report(f"load {settings.vision_model}", 0, 1)
            vision = Engine.load(settings.vision_model)
            _expect(vision, "vision", settings.vision_model, "vision_model")
        return cls(
            settings, chat=chat, embedding=embedding, reranker=reranker, vision=vision, database=database
        )

    @classmethod
    def ephemeral(
        cls, settings: Settings, *, with_chat: bool = True, stage: Stage | None = None
    ) -> "Runtime":
        """A runtime over an empty data folder that is deleted by `close()`."""
        folder = Path(tempfile.mkdtemp(prefix="tarsia-"))
        try:
            runtime = cls.open(replace(settings, data_dir=folder), with_chat=with_chat, stage=stage)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        runtime._scratch = folder
        return runtime

    def warm(self, stage: Stage | None = None) -> None:
        """Compiles the programs requests will need and marks the runtime ready."""
        report = stage or (lambda what, done, total: None)
        for engine in (self._embedding, self._chat, self._reranker, self._vision):
            if engine is not None:
                engine.warm(partial(report, f"warm {engine.name}"))
        self.ready = True

    def models(self) -> list[ModelInfo]:
        loaded: list[tuple[Engine | None, ModelKind]] = [
            (self._chat, "chat"),
            (self._embedding, "embedding"),
            (self._reranker, "rerank"),
            (self._vision, "vision"),
        ]
        return [ModelInfo(engine.name, kind, self._started) for engine, kind in loaded if engine is not None]

    def chat_engine(self, name: str | None) -> Engine:
        """The chat model, of that name if one is given.

        Raises ModelNotFound, or UnsupportedInput for a model of another kind.
        """
        return self._engine(name, self._chat, "chat")

    def embedding_engine(self, name: str | None) -> Engine:
        """The embedding model, of that name if one is given.

        The image model, if it is asked for by name: it embeds images, and texts too if it is a CLIP.

        Raises ModelNotFound, or UnsupportedInput for a model of another kind.
        """
        if self._vision is not None and name == self._vision.name:
            return self._vision
        return self._engine(name, self._embedding, "embedding")

    def rerank_engine(self, name: str | None) -> Engine:
        """The model that ranks: the reranker, or the embedding model if it is asked for by name.

        Raises:
            FeatureDisabled: no name is given and no reranker is configured.
            ModelNotFound, UnsupportedInput: as `chat_engine`.
        """
        if name == self._embedding.name:
            return self._embedding
        if name is not None:
            return self._engine(name, self._reranker, "rerank")
        if self._reranker is None:
            raise FeatureDisabled(
                "no reranker is configured: set rerank_model to one, or name the embedding model "
                f'("model": "{self._embedding.name}") to rank by the likeness of vectors alone'
            )
        return self._reranker

    def vision_engine(self, name: str | None) -> Engine:
        """The image model, of that name if one is given.

        Raises ModelNotFound, or UnsupportedInput for a model of another kind.
        """
        return self._engine(name, self._vision, "vision")

    def gallery(self, name: str | None) -> Gallery:
        """The stored images of the image model. Raises as `vision_engine`."""
        model = self.vision_engine(name).vision
        with self._lock:
            if self._gallery is None:
                self._gallery = Gallery(self._database, model)
            return self._gallery

    def ingest(self, name: str, data: bytes, *, progress: Progress | None = None) -> DocumentRecord:
        limits = ParseLimits(max_bytes=self.settings.max_upload_bytes)
        return self.library.ingest(name, data, limits=limits, progress=progress)

    def documents(self) -> list[DocumentRecord]:
        return self.library.documents()

    def document(self, document_id: str) -> DocumentRecord:
        return self.library.document(document_id)

    def page_text(self, document_id: str, page: int) -> str:
        return self.library.page_text(document_id, page)

    def delete_document(self, document_id: str) -> None:
        self.library.delete(document_id)

    def ask(
        self, question: str, *, document_ids: Sequence[str] | None = None, generate: bool = True
    ) -> Answer:
        """Answers from the documents, all or the given ones. Raises DocumentNotFound, InvalidRequest."""
        return self._qa.answer(question, document_ids=document_ids, generate=generate)

    def stats(self) -> dict[str, Any]:
        """Counters for `/metrics` and `tarsia doctor`, read without touching a device."""
        chat = asdict(self._chat.generator.stats()) if self._chat is not None else {}
        collections = {name: asdict(stats) for name, stats in self._database.stats().items()}
        return {"chat": chat, "documents": len(self.library.documents()), "collections": collections}

    def close(self) -> None:
        """Ends streams, closes the database. Idempotent."""
        self.ready = False
        for engine in (self._chat, self._embedding, self._reranker, self._vision):
            if engine is not None:
                engine.close()
        self._database.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _engine(self, name: str | None, engine: Engine | None, kind: ModelKind) -> Engine:
        if engine is not None and name in (None, engine.name):
            return engine
        known = {model.id: model.kind for model in self.models()}
        if name is None:
            raise ModelNotFound(f"no model for {kind} is loaded; there are: {', '.join(known)}")
        if name in known:
            raise UnsupportedInput(f"{name} is a model for {known[name]}, not for {kind}", param="model")
        raise ModelNotFound(f"the model {name!r} does not exist; there are: {', '.join(known)}")


def _expect(engine: Engine, kind: str, name: str, setting: str) -> None:
    if engine.kind != kind:
        raise UnsupportedInput(f"{setting} = {name!r} is a model of another kind ({engine.kind})")
