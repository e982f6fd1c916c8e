"""Parquet by pyarrow: a column of vectors (lists of numbers), ids, texts; every other column is metadata.

Sparse vectors are a column `sparse` of maps from indices to weights.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stores.errors import InvalidQuery
from stores.interchange.rows import BATCH_ROWS, Float32, Rows, refuse

_VECTORS = ("vector", "vectors", "embedding", "embeddings")
_IDS = ("id", "ids", "_id")
_TEXTS = ("text", "texts", "document")
_SPARSE = "sparse"


def _pyarrow() -> ModuleType:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidQuery("Parquet needs pyarrow: pip install 'tarsia[parquet]'") from error


def read(path: Path) -> Iterator[Rows]:
    """Batches of rows. InvalidQuery names what is missing, or the row."""
    parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow has errors of its own for each layer
        raise InvalidQuery(f"{path.name}: not a Parquet file: {error}") from error
    with file:
        names = file.schema_arrow.names
        vectors = _column(names, _VECTORS)
        if vectors is None:
            known = ", ".join(names) or "none"
            raise InvalidQuery(f"{path.name}: no column {' or '.join(_VECTORS)}; its columns are {known}")
        ids, texts = _column(names, _IDS), _column(names, _TEXTS)
        start = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            matrix = _matrix(path, start, batch.column(vectors))
            plain = {name: batch.column(name).to_pylist() for name in names if name not in (vectors, _SPARSE)}
            yield Rows(
                [str(id) for id in plain[ids]] if ids else [str(start + row) for row in range(len(matrix))],
                matrix,
                _metadata(plain, {ids, texts}, len(matrix)),
                plain[texts] if texts else [None] * len(matrix),
                start,
                _sparse(path, batch.column(_SPARSE)) if _SPARSE in names else None,
            )
            start += len(matrix)


def _column(names: list[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in known if name in names), None)


def _matrix(path: Path, start: int, column: Any) -> Float32:
    """float32 (n, dim) of a list column, whatever numbers it holds."""
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise refuse(path, f"row {start + row}", "there is no vector")
    if not hasattr(column, "flatten"):
        raise InvalidQuery(f"{path.name}: the vectors must be lists of numbers, not {column.type}")
    try:
        values = column.flatten().to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            flat = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"{path.name}: the vectors must be lists of numbers, not {column.type}") from error
    sizes = np.array([len(value) for value in column])
    if (sizes != sizes[0]).any():
        row = int(np.argmax(sizes != sizes[0]))
        raise refuse(path, f"row {start + row}", f"it has {sizes[row]} numbers, the first {sizes[0]}")
    return flat.reshape(len(sizes), -1)


def _sparse(path: Path, column: Any) -> list[dict[int, float] | None]:
    if not str(column.type).startswith("map<"):
        raise InvalidQuery(f"{path.name}: sparse must be maps of indices to weights, not {column.type}")
    return [None if value is None else dict(value) for value in column.to_pylist()]


def _metadata(
    columns: dict[str, list[Any]], known: set[str | None], count: int
) -> list[dict[str, Any] | None]:
    """The other columns of each row; one named `metadata` holds JSON objects or structs, and is merged in."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in columns.items():
        if name in known:
            continue
        for row, value in zip(found, values, strict=True):
            if name == "metadata":
                value = json.loads(value) if isinstance(value, str) and value else value
                if isinstance(value, dict):
                    row.update({key: item for key, item in value.items() if item is not None})
            elif value is not None:
                row[name] = value if isinstance(value, str | int | float | bool | list | dict) else str(value)
    return [row or None for row in found]


def write(batches: Iterator[Rows], path: Path, dim: int) -> None:
    """Columns id, vector (fixed-size lists of float32), metadata (JSON text), text and sparse."""
    parquet = _pyarrow()
    import pyarrow

    text = pyarrow.string()
    vector = pyarrow.list_(pyarrow.float32(), dim)
    sparse = pyarrow.map_(pyarrow.uint32(), pyarrow.float32())
    schema = pyarrow.schema(
        [("id", text), ("vector", vector), ("metadata", text), ("text", text), (_SPARSE, sparse)]
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in batches:
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.vectors.reshape(-1)), dim)
            metadata = [json.dumps(value, ensure_ascii=False) if value else None for value in rows.metadata]
            plain = [pyarrow.array(values, text) for values in (rows.ids, metadata, rows.texts)]
            entries = [list(row.items()) if row else None for row in rows.sparse or [None] * len(rows)]
            columns = [plain[0], vectors, plain[1], plain[2], pyarrow.array(entries, sparse)]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
