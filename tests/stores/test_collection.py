import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stores import Collection, Database, Options, Row
from stores.errors import (
    CorruptStore,
    StoreClosed,
)
from stores.log.disk import Disk
from tests.stores.faults import FaultyDisk

DIM = 12


class MeddlingDisk(Disk):
    """Does something once, in the middle of building a segment."""

    meddle: Callable[[], object] | None = None

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        if self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            meddle()


@pytest.fixture
def database(tmp_path: Path):
    with Database.open(tmp_path / "db", options=Options(seal_rows=100, background=False)) as opened:
        yield opened


def fill(collection: Collection, count: int, *, seed: int = 0, batch: int = 70) -> np.ndarray:
    """Rows "0".."count-1" in batches, so that some are sealed and some are not; their vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, collection.schema.dim)).astype(np.float32)
    for start in range(0, count, batch):
        ids = [str(row) for row in range(start, min(start + batch, count))]
        metadata = [{"row": int(id), "parity": int(id) % 2} for id in ids]
        texts = [f"row number {id}" for id in ids]
        collection.upsert(ids, vectors[start : start + batch], metadata=metadata, texts=texts)
    return vectors


def exact_scores(metric: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    query, vectors = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return -((vectors - query) ** 2).sum(axis=1)
    scores = vectors @ query
    if metric == "cosine":
        scores /= np.linalg.norm(query) * np.linalg.norm(vectors, axis=1)
    return scores


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_search_is_the_brute_force_of_numpy_in_float64(database: Database, metric) -> None:
    collection = database.collection(f"by-{metric}", dim=DIM, metric=metric)
    vectors = fill(collection, 333)
    deleted = [str(row) for row in range(0, 333, 5)]
    assert collection.delete(deleted) == len(deleted)
    replaced = np.random.default_rng(9).standard_normal((7, DIM)).astype(np.float32)
    vectors[1:8] = replaced
    living = [row for row in range(333) if row % 5 or row == 5]
    collection.upsert([str(row) for row in range(1, 8)], replaced)
    queries = np.random.default_rng(1).standard_normal((5, DIM))
    batch = collection.search_batch(queries, 20)
    for query, hits in zip(queries, batch, strict=True):
        expected = exact_scores(metric, query, vectors[living])
        order = np.argsort(-expected)[:20]
        assert [hit.id for hit in hits] == [str(living[place]) for place in order]
        np.testing.assert_allclose([hit.score for hit in hits], expected[order], rtol=2e-5, atol=2e-5)
        alone = collection.search(query, 20)
        assert [hit.id for hit in alone] == [hit.id for hit in hits]
        assert alone[0].vector_score == alone[0].score and alone[0].text_score is None


@pytest.mark.parametrize("k", [1, 16, 17, 250, 10_000])
def test_k_is_the_number_of_hits_unless_there_are_fewer_rows(database: Database, k: int) -> None:
    collection = database.collection("docs", dim=DIM)
    fill(collection, 250)
    collection.delete(["3", "249"])
    hits = collection.search(np.ones(DIM), k)
    assert len(hits) == min(k, 248)
    assert len({hit.id for hit in hits}) == len(hits)


def test_hits_carry_metadata_and_text(database: Database) -> None:
    collection = database.collection("docs", dim=2)
    collection.upsert(
        ["a", "b"], [[1, 0], [0, 1]], metadata=[{"n": {"x": [1, None]}}, None], texts=["Wörd", None]
    )
    first, second = collection.search([1, 0.1], 2)
    assert (first.id, first.metadata, first.text) == ("a", {"n": {"x": [1, None]}}, "Wörd")
    assert (second.id, second.metadata, second.text) == ("b", {}, None)
    collection.flush()
    assert collection.search([1, 0.1], 2) == [first, second]


def test_an_empty_collection_answers_with_nothing(database: Database) -> None:
    collection = database.collection("empty", dim=2)
    assert collection.search([1, 0]) == []
    assert collection.search([1, 0], text="words") == []
    assert collection.search(None, text="words") == []
    assert collection.search_batch(np.ones((3, 2))) == [[], [], []]
    assert (collection.count(), collection.ids(), collection.get(["a"])) == (0, [], [None])
    collection.flush()
    collection.compact()
    assert collection.verify().rows == 0


@pytest.mark.parametrize("share", [2, 50])
def test_a_filter_gives_the_best_of_what_it_lets_through(database: Database, share: int) -> None:
    collection = database.collection("docs", dim=DIM)
    vectors = fill(collection, 400)
    chosen = list(range(0, 400, share))
    query = np.random.default_rng(5).standard_normal(DIM)
    hits = collection.search(query, 10, filter={"row": {"$in": chosen}})
    expected = np.argsort(-exact_scores("cosine", query, vectors[chosen]))[:10]
    assert [hit.id for hit in hits] == [str(chosen[place]) for place in expected]
    assert collection.count(filter={"row": {"$in": chosen}}) == len(chosen)


def test_hybrid_finds_what_only_words_or_only_vectors_find(database: Database) -> None:
    collection = database.collection("docs", dim=2)
    texts = ["a rare zebra", "a horse", "a mule", "a pony"]
    collection.upsert(list("abcd"), [[0, 1], [1, 0], [1, 0.1], [-1, 0]], texts=texts)
    hits = collection.search([1, 0], 4, text="zebra")
    assert {hit.id for hit in hits} == set("abcd")
    assert hits[0].id == "a"
    scores = {hit.id: hit for hit in hits}
    assert scores["a"].score == pytest.approx(1 / 61 + 1 / 63)
    assert scores["b"].score == pytest.approx(1 / 61)
    assert scores["b"].vector_score == pytest.approx(1) and scores["b"].text_score == 0
    assert scores["a"].vector_score == pytest.approx(0, abs=1e-6) and scores["a"].text_score > 0
    only = collection.search(None, 4, text="zebras")
    assert [hit.id for hit in only] == ["a"] and only[0].score == only[0].text_score


def test_get_returns_rows_in_order_and_none_for_unknown_ids(database: Database) -> None:
    collection = database.collection("docs", dim=2, metric="dot")
    collection.upsert(["a", "b"], [[1, 2], [3, 4]], texts=["x", ""])
    collection.flush()
    collection.upsert(["c"], [[5, 6]])
    second, none, first, third = collection.get(["b", "nobody", "a", "c"])
    assert none is None and isinstance(first, Row)
    assert (first.id, first.vector.tolist(), first.text) == ("a", [1, 2], "x")
    assert second is not None and second.text == ""
    assert third is not None and third.vector.tolist() == [5, 6]
    assert "a" in collection and "nobody" not in collection


def test_scores_that_overflow_still_only_find_living_rows(database: Database) -> None:
    collection = database.collection("dots", dim=2, metric="dot")
    collection.upsert(["big", "gone", "small"], [[-3e38, -3e38], [1, 1], [1, 1]])
    collection.delete(["gone"])
    assert [hit.id for hit in collection.search([3e38, 3e38], 3)] == ["small", "big"]


def test_tiny_and_huge_vectors_keep_their_direction(database: Database) -> None:
    collection = database.collection("cosine", dim=2)
    collection.upsert(["tiny", "huge"], [[1e-30, 0], [3e38, 3e38]])
    hits = collection.search([1e-35, 0], 2)
    np.testing.assert_allclose([hit.score for hit in hits], [1, 0.5**0.5], rtol=1e-6)


def test_empty_batches_write_nothing(database: Database) -> None:
    collection = database.collection("docs", dim=2)
    assert collection.upsert([], np.zeros((0, 2))) == 0
    assert collection.upsert([], []) == 0
    assert collection.delete([]) == 0
    assert collection.stats().records == 0


def test_the_caller_may_change_what_it_handed_in(database: Database) -> None:
    collection = database.collection("docs", dim=2, metric="dot")
    vectors, metadata = np.ones((1, 2), np.float32), {"a": [1]}
    collection.upsert(["a"], vectors, metadata=[metadata])
    vectors[:] = 9
    metadata["a"].append(2)
    (row,) = collection.get(["a"])
    assert row is not None and row.vector.tolist() == [1, 1] and row.metadata == {"a": [1]}


def test_a_reader_keeps_its_rows_while_they_are_replaced_merged_and_removed(database: Database) -> None:
    collection = database.collection("docs", dim=DIM)
    vectors = fill(collection, 250)
    reading = iter(collection)
    seen = [next(reading)]
    fill(collection, 250, seed=3)
    collection.delete([str(row) for row in range(100)])
    collection.compact()
    seen += list(reading)
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [row.id for row in seen] == [str(row) for row in range(250)]
    np.testing.assert_allclose(np.stack([row.vector for row in seen]), expected, rtol=1e-6)


def test_compaction_returns_the_space_of_dead_rows(database: Database) -> None:
    collection = database.collection("docs", dim=256)
    for seed in range(6):
        fill(collection, 200, seed=seed)
    collection.delete([str(row) for row in range(0, 200, 2)])
    before = collection.stats()
    collection.compact()
    after = collection.stats()
    assert (after.rows, after.dead, after.segments, after.unsealed_rows) == (100, 0, 1, 0)
    assert after.disk_bytes < before.disk_bytes
    assert after.disk_bytes < 1.5 * 100 * (4 * 256 + 60) + 40_000
    assert sorted(collection.ids(), key=int) == [str(row) for row in range(1, 200, 2)]


def test_rows_deleted_while_a_merge_runs_stay_deleted(tmp_path: Path) -> None:
    disk = MeddlingDisk()
    with Database.open(tmp_path, disk=disk) as database:
        collection = database.collection("docs", dim=DIM)
        for seed in range(2):
            fill(collection, 60, seed=seed)
            collection.flush()
        disk.meddle = lambda: collection.delete(["7"]) and collection.upsert(["8"], np.ones((1, DIM)))
        collection.compact()
        assert disk.meddle is None
        expected = [str(row) for row in range(60) if row != 7]
        assert sorted(collection.ids(), key=int) == expected
        collection.flush()
    with Database.open(tmp_path) as database:
        collection = database.collection("docs")
        assert sorted(collection.ids(), key=int) == expected
        np.testing.assert_allclose(collection.get(["8"])[0].vector, DIM**-0.5, rtol=1e-6)


def test_segments_stay_few_and_dead_rows_bounded_without_being_asked(tmp_path: Path) -> None:
    with Database.open(
        tmp_path, options=Options(seal_rows=20, background=False), disk=FaultyDisk()
    ) as database:
        collection = database.collection("docs", dim=2)
        for number in range(200):
            ids = [str(id) for id in range(10 * (number % 30), 10 * (number % 30) + 10)]
            collection.upsert(ids, np.ones((10, 2)))
        stats = collection.stats()
        assert stats.rows == 300
        assert stats.segments <= 6
        assert stats.dead < 300
        assert stats.log_bytes < 20_000


def test_a_workload_of_deletes_does_not_grow_the_log_for_ever(tmp_path: Path) -> None:
    with Database.open(
        tmp_path, options=Options(seal_bytes=5_000, rotate_bytes=2_000, background=False)
    ) as database:
        collection = database.collection("docs", dim=2)
        for _ in range(100):
            collection.delete([f"nobody-{number}" for number in range(20)])
        assert collection.stats().log_bytes < 12_000


@pytest.mark.parametrize("name", ["vec.f32", "ids", "meta", "texts", "footer.json", "tomb-3"])
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_segment_file_is_named_before_it_can_answer(tmp_path: Path, name: str, damage: str) -> None:
    with Database.open(tmp_path) as database:
        collection = database.collection("docs", dim=DIM)
        fill(collection, 60)
        collection.flush()
        collection.delete(["7"])
        collection.upsert(["late"], np.ones((1, DIM)))
        collection.flush()
    (path,) = (tmp_path / "collections" / "docs" / "seg").glob("*/tomb-3")
    path = path.with_name(name)
    whole = path.read_bytes()
    middle = 800
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-1])
    else:
        middle %= len(whole)
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with Database.open(tmp_path) as database, pytest.raises(CorruptStore, match=name) as caught:
        collection = database.collection("docs")
        collection.search(np.ones(DIM), 5)
        collection.verify()
    assert caught.value.path == path


def test_a_closed_database_refuses_everything(database: Database) -> None:
    collection = database.collection("docs", dim=2)
    collection.upsert(["a"], [[1, 0]])
    database.close()
    for use in (
        lambda: collection.upsert(["b"], [[1, 0]]),
        lambda: collection.search([1, 0]),
        lambda: collection.get(["a"]),
        collection.count,
        collection.ids,
        collection.compact,
        collection.flush,
        collection.verify,
        lambda: database.collection("docs"),
        database.collections,
    ):
        with pytest.raises(StoreClosed):
            use()


def test_readers_see_whole_batches_while_four_writers_write(tmp_path: Path) -> None:
    """Every batch rewrites all ids of its writer with one version: a mix of versions is a torn read."""
    with Database.open(tmp_path, options=Options(seal_rows=64, background=False)) as database:
        collection = database.collection("docs", dim=2)
        failures: list[object] = []
        done = threading.Event()

        def write(writer: int) -> None:
            ids = [f"{writer}-{number}" for number in range(8)]
            for version in range(1, 26):
                metadata = [{"writer": writer, "version": version}] * 8
                collection.upsert(ids, np.ones((8, 2)), metadata=metadata, texts=["some words"] * 8)

        def read() -> None:
            while not done.is_set():
                hits = collection.search([1, 0], 100)
                words = collection.search(None, 100, text="words")
                for found in ([hit.metadata for hit in hits], [hit.metadata for hit in words]):
                    for writer in range(4):
                        versions = [data["version"] for data in found if data["writer"] == writer]
                        if len(versions) not in (0, 8) or len(set(versions)) > 1:
                            failures.append(versions)

        def guarded(work, *arguments) -> None:
            try:
                work(*arguments)
            except BaseException as error:
                failures.append(error)

        readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(3)]
        writers = [threading.Thread(target=guarded, args=(write, number)) for number in range(4)]
        for thread in readers + writers:
            thread.start()
        for thread in writers:
            thread.join(120)
        done.set()
        for thread in readers:
            thread.join(120)
        assert failures == []
        assert collection.count() == 32
        assert {row.metadata["version"] for row in collection} == {25}
        assert collection.verify().rows == 32
