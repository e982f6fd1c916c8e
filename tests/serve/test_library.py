"""Documents in the store, with the real embedder: whole or not at all, found, read back, forgotten."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import Engine
from engine.embeddings.embedder import TextEmbedder
from engine.errors import Cancelled, DocumentNotFound, UnsupportedDocument
from serve.library import Library
from stores import Database

BREAD = b"# Bread\n\nKnead the dough for ten minutes. Let it rise for two hours in a warm place.\n"
BIRDS = b"# Birds\n\nThe arctic tern flies from pole to pole. A wren weighs ten grams.\n"


@pytest.fixture(scope="module")
def embedder(minilm_path: Path) -> TextEmbedder:
    return Engine.load(minilm_path).embedder


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "data") as database:
        yield database


@pytest.fixture
def library(database: Database, embedder: TextEmbedder) -> Library:
    return Library(database, embedder, clock=lambda: 1000.0)


def test_an_ingested_document_is_listed_with_its_pages(library: Library) -> None:
    record = library.ingest("bread.md", BREAD)
    assert library.documents() == [record] == [library.document(record.id)]
    assert (record.name, record.pages, record.bytes, record.created_at) == ("bread.md", 1, len(BREAD), 1000)
    assert (record.status, record.warnings) == ("ready", ())
    assert "Knead the dough" in library.page_text(record.id, 1)


def test_the_same_bytes_under_the_same_name_are_stored_once(library: Library, database: Database) -> None:
    first = library.ingest("bread.md", BREAD)
    rows = database.collection("passages").count()
    assert library.ingest("bread.md", BREAD) == first
    assert library.ingest("loaf.md", BREAD).id != first.id
    assert database.collection("passages").count() == 2 * rows


def test_passages_come_back_as_exact_slices_of_their_page(library: Library, embedder: TextEmbedder) -> None:
    for name, data in (("bread.md", BREAD), ("birds.md", BIRDS)):
        library.ingest(name, data)
    question = "How long does the dough rise?"
    best = library.retrieve(embedder.embed([question])[0], question, k=2)[0]
    passage = best.passage
    assert passage.document == "bread.md"
    assert library.page_text(passage.document_id, passage.page)[passage.start : passage.end] == passage.text
    expected = float(embedder.embed([question])[0] @ embedder.embed([passage.text])[0])
    assert best.score == pytest.approx(expected, abs=1e-4)


def test_retrieval_can_be_held_to_some_documents(library: Library, embedder: TextEmbedder) -> None:
    library.ingest("bread.md", BREAD)
    birds = library.ingest("birds.md", BIRDS)
    vector = embedder.embed(["dough"])[0]
    found = library.retrieve(vector, "dough", k=10, document_ids=[birds.id])
    assert {scored.passage.document for scored in found} == {"birds.md"}
    with pytest.raises(DocumentNotFound):
        library.retrieve(vector, "dough", k=1, document_ids=["doc-none"])


def test_a_deleted_document_is_gone_everywhere(library: Library, database: Database) -> None:
    record = library.ingest("bread.md", BREAD)
    library.delete(record.id)
    assert library.documents() == []
    assert database.collection("passages").count() == 0
    for gone in (lambda: library.page_text(record.id, 1), lambda: library.delete(record.id)):
        with pytest.raises(DocumentNotFound):
            gone()


@pytest.mark.parametrize("page", [0, 2, -1])
def test_a_page_that_is_not_there_is_refused_with_the_range(library: Library, page: int) -> None:
    record = library.ingest("bread.md", BREAD)
    with pytest.raises(DocumentNotFound, match="pages 1 to 1"):
        library.page_text(record.id, page)


def test_everything_is_there_after_a_reopen(tmp_path: Path, embedder: TextEmbedder) -> None:
    with Database.open(tmp_path / "data") as database:
        before = Library(database, embedder)
        record = before.ingest("birds.md", BIRDS)
        text = before.page_text(record.id, 1)
    with Database.open(tmp_path / "data") as database:
        after = Library(database, embedder)
        assert after.documents() == [record]
        assert after.page_text(record.id, 1) == text


def test_a_document_cut_short_before_its_record_leaves_nothing(
    database: Database, embedder: TextEmbedder
) -> None:
    library = Library(database, embedder)
    record = library.ingest("bread.md", BREAD)
    # What a kill between the last passage and the record leaves behind:
    database.collection("documents").delete([record.id])
    again = Library(database, embedder)
    assert again.documents() == []
    assert database.collection("passages").count() == 0


def test_an_ingestion_that_is_stopped_leaves_nothing(library: Library, database: Database) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("the caller left")

    with pytest.raises(Cancelled):
        library.ingest("bread.md", BREAD, progress=stop)
    assert (library.documents(), database.collection("passages").count()) == ([], 0)


def test_a_file_that_cannot_be_read_leaves_nothing(library: Library, database: Database) -> None:
    with pytest.raises(UnsupportedDocument):
        library.ingest("noise.bin", bytes(np.random.default_rng(0).integers(0, 256, 4096, np.uint8)))
    assert (library.documents(), database.collection("documents").count()) == ([], 0)
