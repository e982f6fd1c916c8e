"""One JSON object a line: {"id": "a", "vector": [0.1, ...], "metadata": {...}, "text": "..."}.

A sparse vector is "sparse": {"17": 0.5, ...}.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stores.interchange.rows import BATCH_ROWS, Rows, as_matrix, refuse

MOST_LINE_BYTES = 16 << 20
_KNOWN = {"id", "vector", "metadata", "text", "sparse"}


def read(path: Path) -> Iterator[Rows]:
    """Batches of rows. InvalidQuery names the file and the line."""
    with path.open("rb") as file:
        batch: list[dict[str, Any]] = []
        first = number = 1
        for line in _lines(path, file):
            blank = not line.strip()
            if not blank:
                batch.append(_row(path, number, line))
            number += 1
            # A blank line ends a batch too, so that its rows are lines one after the other.
            if len(batch) == BATCH_ROWS or blank:
                if batch:
                    yield _rows(path, first, batch)
                batch, first = [], number
        if batch:
            yield _rows(path, first, batch)


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise refuse(path, f"line {number}", f"it is longer than {MOST_LINE_BYTES >> 20} MiB")
        yield line


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise refuse(path, f"line {number}", f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise refuse(path, f"line {number}", "a row is an object with id and vector")
    if unknown := set(row) - _KNOWN:
        raise refuse(
            path, f"line {number}", f"unknown key {min(unknown)!r}; known are {', '.join(sorted(_KNOWN))}"
        )
    if not isinstance(row.get("id"), str):
        raise refuse(path, f"line {number}", "id must be a text")
    return row


def _rows(path: Path, first: int, batch: list[dict[str, Any]]) -> Rows:
    return Rows(
        [row["id"] for row in batch],
        as_matrix(path, first, [row.get("vector") for row in batch], "line"),
        [row.get("metadata") for row in batch],
        [row.get("text") for row in batch],
        first,
        [_sparse(path, first + number, row.get("sparse")) for number, row in enumerate(batch)],
    )


def _sparse(path: Path, number: int, value: Any) -> dict[int, float] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(key.isdecimal() for key in value):
        raise refuse(path, f"line {number}", 'sparse must be an object like {"17": 0.5}')
    return {int(key): weight for key, weight in value.items()}


def write(batches: Iterator[Rows], path: Path) -> None:
    """Vectors as the shortest numbers that give the same float32 back."""
    with path.open("w", encoding="utf-8") as file:
        for rows in batches:
            sparse = rows.sparse or [None] * len(rows)
            columns = zip(rows.ids, rows.vectors, rows.metadata, rows.texts, sparse, strict=True)
            for id, vector, metadata, text, entries in columns:
                numbers = ", ".join(map(str, vector))
                parts = [f'"id": {json.dumps(id, ensure_ascii=False)}', f'"vector": [{numbers}]']
                if metadata:
                    parts.append(f'"metadata": {json.dumps(metadata, ensure_ascii=False)}')
                if text is not None:
                    parts.append(f'"text": {json.dumps(text, ensure_ascii=False)}')
                if entries:
                    parts.append(f'"sparse": {json.dumps(entries)}')
                file.write("{" + ", ".join(parts) + "}\n")
