"""Any sequence of operations on a collection, beside a dict that does the same."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stores import Database, Options

DIM = 3
ID = st.sampled_from([f"id{number}" for number in range(12)])
VECTOR = st.lists(st.integers(-4, 4), min_size=DIM, max_size=DIM)
ROW = st.tuples(VECTOR, st.integers(0, 3), st.sampled_from([None, "", "red fox", "blue foxes", "a red hen"]))
OPTIONS = Options(seal_rows=9, rotate_bytes=800, graph_rows=20, background=False)
WORDS = {"red": "red", "fox": "fox", "foxes": "fox"}


class CollectionMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.model: dict[str, tuple] = {}
        self.open()

    def open(self) -> None:
        self.database = Database.open(self.folder, options=OPTIONS)
        self.rows = self.database.collection("rows", dim=DIM, metric="l2")

    @rule(batch=st.dictionaries(ID, ROW, min_size=1, max_size=6))
    def upsert(self, batch: dict[str, tuple]) -> None:
        vectors, groups, texts = (list(column) for column in zip(*batch.values(), strict=True))
        metadata = [{"group": group} for group in groups]
        sparse = [{group: 1 + group} if group else None for group in groups]
        done = self.rows.upsert(list(batch), vectors, metadata=metadata, texts=texts, sparse=sparse)
        assert done == len(batch)
        self.model.update(batch)

    @rule(ids=st.lists(ID, max_size=4))
    def delete(self, ids: list[str]) -> None:
        expected = sum(self.model.pop(id, None) is not None for id in ids)
        assert self.rows.delete(ids) == expected

    @rule(group=st.integers(0, 3))
    def delete_by_filter(self, group: int) -> None:
        doomed = [id for id, (_, of, _) in self.model.items() if of == group]
        assert self.rows.delete(filter={"group": group}) == len(doomed)
        for id in doomed:
            del self.model[id]

    @rule(group=st.integers(1, 3))
    def search_sparse(self, group: int) -> None:
        hits = self.rows.search(None, 20, sparse={group: 2.0})
        assert {hit.id for hit in hits} == {id for id, (_, of, _) in self.model.items() if of == group}
        assert all(hit.score == 2 + 2 * group for hit in hits)

    @rule()
    def reindex(self) -> None:
        self.rows.reindex()

    @rule()
    def reopen(self) -> None:
        self.database.close()
        self.open()

    @rule()
    def flush(self) -> None:
        self.rows.flush()

    @rule()
    def compact(self) -> None:
        self.rows.compact()
        assert self.rows.stats().dead == 0

    @precondition(lambda self: self.model)
    @rule(query=VECTOR, k=st.integers(1, 14), group=st.none() | st.integers(0, 3))
    def search(self, query: list[int], k: int, group: int | None) -> None:
        filter = None if group is None else {"group": group}
        hits = self.rows.search(query, k, filter=filter)
        distances = {
            id: -float(np.sum(np.subtract(vector, query) ** 2))
            for id, (vector, of, _) in self.model.items()
            if group in (None, of)
        }
        assert [hit.score for hit in hits] == sorted(distances.values(), reverse=True)[:k]
        assert all(distances[hit.id] == hit.score for hit in hits)

    @rule(word=st.sampled_from(sorted(WORDS)))
    def search_by_word(self, word: str) -> None:
        found = {hit.id for hit in self.rows.search(None, 20, text=word)}
        expected = {id for id, (_, _, text) in self.model.items() if text and WORDS[word] in text}
        assert found == expected

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        rows = {row.id: (row.vector.tolist(), row.metadata["group"], row.text) for row in self.rows}
        assert rows == self.model
        assert self.rows.count() == len(self.model)
        assert [row and row.id for row in self.rows.get(["id0", "id11"])] == [
            id if id in self.model else None for id in ("id0", "id11")
        ]

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.rows.verify()
            self.database.close()
            shutil.rmtree(self.folder)


TestCollection = CollectionMachine.TestCase
TestCollection.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
