import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.protocols import EmbeddingCache
from stores.cache.embeddings import EmbeddingTable


def vectors_of(*numbers: int) -> np.ndarray:
    return np.array([[number, number + 0.5, -number] for number in numbers], np.float32)


def first_numbers(found) -> list[float | None]:
    return [None if vector is None else float(vector[0]) for vector in found]


def test_what_was_put_is_got_in_order_and_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.db"
    with EmbeddingTable(path) as table:
        cache: EmbeddingCache = table
        cache.put_many(["a", "b"], vectors_of(1, 2))
        assert first_numbers(cache.get_many(["b", "x", "a", "b"])) == [2, None, 1, 2]
    with EmbeddingTable(path) as table:
        found = table.get_many(["a", "b", "c"])
        np.testing.assert_array_equal(np.stack(found[:2]), vectors_of(1, 2))
        assert found[2] is None
        stats = table.stats()
        assert (stats.hits, stats.misses, stats.rows, stats.memory_rows) == (2, 1, 2, 2)


def test_a_key_put_again_is_replaced(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "c.db", max_memory_entries=0) as table:
        table.put_many(["a"], vectors_of(1))
        table.put_many(["a"], vectors_of(2))
        assert first_numbers(table.get_many(["a"])) == [2]
        assert table.stats().rows == 1


def test_vectors_are_copies_that_nobody_can_change(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "c.db") as table:
        vectors = vectors_of(1)
        table.put_many(["a"], vectors)
        vectors[:] = 9
        (found,) = table.get_many(["a"])
        assert found is not None and found[0] == 1
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 3


def test_memory_keeps_the_recently_used_and_disk_the_rest(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "c.db", max_memory_entries=2) as table:
        table.put_many(["a", "b"], vectors_of(1, 2))
        table.get_many(["a"])
        table.put_many(["c"], vectors_of(3))
        assert list(table._memory) == ["a", "c"]
        assert first_numbers(table.get_many(["a", "b", "c"])) == [1, 2, 3]
        assert table.stats().memory_rows == 2


def test_the_table_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "c.db", max_memory_entries=0, max_rows=3) as table:
        for number in range(10):
            table.put_many([str(number)], vectors_of(number))
        assert table.stats().rows == 3
        assert first_numbers(table.get_many(["6", "7", "8", "9"])) == [None, 7, 8, 9]


def test_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    keys = [str(number) for number in range(1234)]
    with EmbeddingTable(tmp_path / "c.db", max_memory_entries=10) as table:
        table.put_many(keys, vectors_of(*range(1234)))
        assert first_numbers(table.get_many(keys)) == list(range(1234))


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_discarded_and_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(content)
    with EmbeddingTable(path) as table:
        assert table.get_many(["a"]) == [None]
        table.put_many(["a"], vectors_of(1))
    with EmbeddingTable(path) as table:
        assert first_numbers(table.get_many(["a"])) == [1]


def test_damage_found_while_in_use_is_a_miss_and_the_table_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    keys = [str(number) for number in range(2000)]
    with EmbeddingTable(path) as table:
        table.put_many(keys, vectors_of(*range(2000)))
    data = bytearray(path.read_bytes())
    data[8192:] = b"\x5a" * (len(data) - 8192)
    path.write_bytes(data)
    with EmbeddingTable(path) as table:
        assert None in table.get_many(keys)
        table.put_many(["new"], vectors_of(7))
        assert first_numbers(table.get_many(["new"])) == [7]
    with EmbeddingTable(path) as table:
        assert first_numbers(table.get_many(["new"])) == [7]


def test_a_flipped_bit_in_a_vector_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with EmbeddingTable(path) as table:
        table.put_many(["a", "b"], vectors_of(1, 2))
    with sqlite3.connect(path) as database:
        (data,) = database.execute("SELECT data FROM vectors WHERE key = 'a'").fetchone()
        database.execute("UPDATE vectors SET data = ? WHERE key = 'a'", (data[:-1] + bytes([data[-1] ^ 1]),))
    database.close()
    with EmbeddingTable(path) as table:
        assert first_numbers(table.get_many(["a", "b"])) == [None, 2]


def test_use_after_close_does_not_destroy_the_table(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    table = EmbeddingTable(path, max_memory_entries=0)
    table.put_many(["a"], vectors_of(1))
    table.close()
    assert table.get_many(["a"]) == [None]
    with EmbeddingTable(path) as again:
        assert first_numbers(again.get_many(["a"])) == [1]


def test_vectors_and_keys_must_match(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "c.db") as table, pytest.raises(ValueError, match=r"\(2, dim\)"):
        table.put_many(["a", "b"], vectors_of(1))


def test_threads_share_a_table(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "c.db", max_memory_entries=5) as table:
        wrong: list[object] = []

        def work(worker: int) -> None:
            try:
                for number in range(30):
                    key = f"{worker}-{number}"
                    table.put_many([key], vectors_of(number))
                    if first_numbers(table.get_many([key])) != [number]:
                        wrong.append(key)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert table.stats().rows == 180
