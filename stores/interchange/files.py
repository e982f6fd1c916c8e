"""Importing and exporting a collection, by the file's ending or a format's name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from stores.collection import Collection, Row
from stores.errors import InvalidQuery, InvalidRow, StoreError
from stores.interchange import jsonl, numpy_files, parquet, vecs
from stores.interchange.rows import BATCH_ROWS, Rows
from stores.query.filters import Filter

Progress = Callable[[int], None]
FORMATS = ("jsonl", "npy", "npz", "parquet", "fvecs", "ivecs", "bvecs")
_READERS: dict[str, Callable[[Path], Iterator[Rows]]] = {
    "jsonl": jsonl.read,
    "npy": numpy_files.read_npy,
    "npz": numpy_files.read_npz,
    "parquet": parquet.read,
    "fvecs": vecs.read,
    "ivecs": vecs.read,
    "bvecs": vecs.read,
}


@dataclass(frozen=True)
class Report:
    """How many rows went which way, and what they are."""

    rows: int
    dim: int
    format: str


def format_of(path: Path, name: str | None = None) -> str:
    """One of FORMATS. InvalidQuery names them."""
    found = name or path.suffix.lstrip(".").lower()
    found = {"ndjson": "jsonl", "json": "jsonl", "pq": "parquet"}.get(found, found)
    if found not in FORMATS:
        raise InvalidQuery(f"{path.name}: what format is it? There are: {', '.join(FORMATS)}")
    return found


def import_rows(
    open_collection: Callable[[int], Collection],
    path: Path,
    *,
    format: str | None = None,
    progress: Progress = lambda rows: None,
) -> Report:
    """Upserts the file's rows in batches of 1,000, each durable when the next begins.

    `open_collection` gets the file's dimension. A row that cannot be stored stops it with an error that
    names it; what came before stays, and importing the corrected file again replaces it row by row.
    """
    name = format_of(path, format)
    if not path.is_file():
        raise InvalidQuery(f"{path}: there is no such file")
    batches = _READERS[name](path)
    first = next(batches, None)
    if first is None:
        raise InvalidQuery(f"{path.name}: it has no rows")
    dim = first.vectors.shape[1]
    collection = open_collection(dim)
    count = 0
    for rows in chain([first], batches):
        try:
            collection.upsert(
                rows.ids, rows.vectors, metadata=rows.metadata, texts=rows.texts, sparse=rows.sparse
            )
        except InvalidRow as error:
            place = "line" if name == "jsonl" else "row"
            raise InvalidQuery(f"{path.name}, {place} {rows.first + error.row}: {error.reason}") from error
        count += len(rows)
        progress(count)
    return Report(count, dim, name)


def export_rows(
    collection: Collection,
    path: Path,
    *,
    format: str | None = None,
    filter: Filter | None = None,
    progress: Progress = lambda rows: None,
) -> Report:
    """Writes rows as they are now; the file appears when it is complete.

    npy and fvecs hold the dense vectors alone.
    """
    name = format_of(path, format)
    bits = collection.schema.metric == "hamming"
    dim = collection.schema.dim // 8 if bits else collection.schema.dim
    counted = _Counted(collection.iterate(filter=filter), progress)
    unfinished = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        if name == "jsonl":
            jsonl.write(counted.batches(), unfinished)
        elif name == "npy":
            numpy_files.write_npy(counted.batches(), unfinished, dim)
        elif name == "npz":
            numpy_files.write_npz(counted.batches(), unfinished)
        elif name == "parquet":
            parquet.write(counted.batches(), unfinished, dim)
        else:
            vecs.write(counted.batches(), unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: it could not be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Report(counted.rows, dim, name)


class _Counted:
    """Rows in batches, counted as they pass."""

    def __init__(self, rows: Iterator[Row], progress: Progress) -> None:
        self._rows, self._progress, self.rows = rows, progress, 0

    def batches(self) -> Iterator[Rows]:
        while part := list(islice(self._rows, BATCH_ROWS)):
            yield Rows(
                [row.id for row in part],
                np.stack([row.vector for row in part]).astype(np.float32),
                [row.metadata for row in part],
                [row.text for row in part],
                self.rows,
                [row.sparse for row in part],
            )
            self.rows += len(part)
            self._progress(self.rows)
