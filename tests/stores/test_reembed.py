from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.errors import InvalidQuery, ModelMismatch
from tests.stores.faults import Crash
from tests.stores.index.vectors import clustered, recall

COUNT = 600
OLD, NEW = 24, 32
OPTIONS = Options(seal_rows=200, graph_rows=300, background=False)


@pytest.fixture(scope="module")
def meanings() -> np.ndarray:
    """What texts mean: (rows, 16). Both models are linear views of it, with noise."""
    return clustered(COUNT + 50, 16)


def model(meanings: np.ndarray, dim: int):
    rng = np.random.default_rng(dim)
    view = rng.standard_normal((16, dim))
    noise = 0.05 * rng.standard_normal((len(meanings), dim))
    return lambda texts: np.array([meanings[int(text)] @ view + noise[int(text)] for text in texts])


@pytest.fixture
def database(tmp_path: Path, meanings: np.ndarray):
    with Database.open(tmp_path, options=OPTIONS) as opened:
        docs = opened.collection("docs", dim=OLD, model="old")
        texts = [str(row) for row in range(COUNT)]
        metadata = [{"n": int(id)} for id in texts]
        docs.upsert(texts, model(meanings, OLD)(texts), texts=texts, metadata=metadata)
        yield opened


def test_both_spaces_are_searched_while_rows_move(database: Database, meanings: np.ndarray) -> None:
    embed, made = model(meanings, NEW), []

    class Stop(Exception):
        pass

    def half(done: int, total: int) -> None:
        made.append((done, total))
        if done >= COUNT / 2:
            raise Stop

    moving = database.reembed("docs", embed, model="new", dim=NEW)
    with pytest.raises(Stop):
        moving.run(progress=half)
    assert moving.new.count() == 512 and made[-1] == (512, COUNT)
    queries = embed([str(row) for row in range(COUNT, COUNT + 50)])
    moved = embed([str(row) for row in range(COUNT)])
    expected = queries @ (moved / np.linalg.norm(moved, axis=1, keepdims=True)).T
    found = [{int(hit.id) for hit in moving.search(query, 10)} for query in queries]
    # Rows not moved yet are found through the map: without it none of them would be.
    assert recall(found, expected, 10) > 0.85
    expected[:, :512] = -np.inf
    far = [{int(hit.id) for hit in moving.search(query, 30) if int(hit.id) >= 512} for query in queries]
    assert recall(far, expected, 2) > 0.4
    old, query = database.collection("docs"), model(meanings, OLD)(["5"])[0]
    assert old.schema.model == "old" and old.search(query, 1, model="old")[0].id == "5"
    with pytest.raises(ModelMismatch, match="reembed"):
        old.search(np.ones(OLD), 1, model="new")


def test_finishing_puts_the_new_rows_in_place(database: Database, meanings: np.ndarray) -> None:
    embed = model(meanings, NEW)
    docs = database.collection("docs")
    moving = database.reembed("docs", embed, model="new", dim=NEW)
    assert moving.run() == COUNT
    assert moving.run() == 0
    # What changes meanwhile is moved as well.
    docs.delete(["7"])
    docs.upsert(["8"], np.ones((1, OLD)), texts=["9"])
    finished = moving.finish()
    assert finished is docs and (docs.schema.model, docs.schema.dim) == ("new", NEW)
    assert docs.count() == COUNT - 1 and "7" not in docs
    vector = embed(["9"])[0]
    np.testing.assert_allclose(docs.get(["8"])[0].vector, vector / np.linalg.norm(vector), atol=1e-6)
    assert docs.get(["3"])[0].metadata == {"n": 3}
    assert database.collections() == ["docs"]
    docs.verify()


def test_a_row_without_text_is_named_and_the_same_model_refused(database: Database) -> None:
    database.collection("docs").upsert(["bare"], np.ones((1, OLD)))
    moving = database.reembed("docs", lambda texts: np.ones((len(texts), NEW)), model="new", dim=NEW)
    with pytest.raises(InvalidQuery, match=r"'bare'.*no text"):
        moving.run()
    with pytest.raises(ModelMismatch, match="already"):
        database.reembed("docs", lambda texts: np.ones((len(texts), OLD)), model="old", dim=OLD)


def test_a_crash_on_the_way_loses_nothing_and_it_goes_on(tmp_path: Path, meanings: np.ndarray) -> None:
    embed, calls = model(meanings, NEW), []

    def crashing(texts):
        calls.append(len(texts))
        if len(calls) == 2:
            raise Crash
        return embed(texts)

    with Database.open(tmp_path, options=OPTIONS) as database:
        docs = database.collection("docs", dim=OLD, model="old")
        texts = [str(row) for row in range(COUNT)]
        docs.upsert(texts, model(meanings, OLD)(texts), texts=texts)
        with pytest.raises(Crash):
            database.reembed("docs", crashing, model="new", dim=NEW).run()
    with Database.open(tmp_path, options=OPTIONS) as database:
        moving = database.reembed("docs", embed, model="new", dim=NEW)
        assert moving.run() == COUNT - 256
        moving.finish()
    with Database.open(tmp_path, options=OPTIONS) as database:
        assert database.collection("docs", model="new").count() == COUNT
