"""The bytes of rows: string columns, batches, metadata columns, tombstones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.errors import CorruptStore
from stores.segment.batch import Batch, decode_deletion, encode_deletion
from stores.segment.columns import MISSING, Column
from stores.segment.strings import Strings, encode_strings
from stores.segment.tombs import read_alive, write_tombs
from tests.stores.faults import FaultyDisk

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(str.encode)


@given(st.lists(st.none() | TEXT, max_size=20))
def test_strings_come_back_and_none_is_not_empty(values: list[bytes | None]) -> None:
    column = Strings(encode_strings(values))
    assert list(column) == values
    assert len(column) == len(values)


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(0, 200))
def test_a_column_cut_short_is_refused(values: list[bytes], cut: int) -> None:
    data = encode_strings(values)
    with pytest.raises(ValueError, match="column"):
        Strings(data[: min(cut, len(data) - 1)])


@given(
    st.lists(st.tuples(TEXT.filter(bool), st.none() | TEXT, st.none() | TEXT), max_size=6), st.integers(1, 5)
)
def test_a_batch_comes_back_from_its_payload(rows, dim: int) -> None:
    ids, metadata, texts = ([row[column] for row in rows] for column in range(3))
    vectors = np.arange(len(rows) * dim, dtype=np.float32).reshape(len(rows), dim)
    kind, parts = Batch(ids, metadata, texts, vectors).to_record()
    batch = Batch.of_record(kind, b"".join(parts))
    assert (batch.ids, batch.metadata, batch.texts) == (ids, metadata, texts)
    np.testing.assert_array_equal(batch.vectors, vectors)


def test_deleted_ids_come_back_from_their_payload() -> None:
    assert decode_deletion(encode_deletion([b"a", "ü".encode()])) == ["a", "ü"]


def test_a_column_tells_types_apart_and_grows() -> None:
    column = Column()
    values = [1, True, 1.0, "1", None, MISSING, [1], {"a": 1}]
    for value in values:
        column.extend([value])
    for place, value in enumerate(values):
        mask = column.where(lambda seen, value=value: seen is value, len(values))
        assert mask.tolist() == [other == place for other in range(len(values))]
    assert column.where(lambda _: True, 3).tolist() == [True] * 3


@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(deadline=None)
def test_tombstones_come_back_and_any_flipped_byte_is_refused(tmp_path_factory, alive: list[bool]) -> None:
    folder: Path = tmp_path_factory.mktemp("tombs")
    mask = np.array(alive)
    write_tombs(folder, 3, mask, FaultyDisk())
    assert read_alive(folder, 3, len(alive)).tolist() == alive
    assert read_alive(folder, 0, len(alive)).all()
    path = folder / "tomb-3"
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(CorruptStore, match="tomb-3"):
            read_alive(folder, 3, len(alive))
