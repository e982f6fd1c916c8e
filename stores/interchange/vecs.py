"""fvecs, ivecs, bvecs, as texmex's corpora have them: each vector's dimension as int32, then its numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import InvalidQuery
from stores.interchange.rows import BATCH_ROWS, Rows, refuse
from stores.schema import MAX_DIM

_KINDS: dict[str, np.dtype[Any]] = {
    ".fvecs": np.dtype("<f4"),
    ".ivecs": np.dtype("<i4"),
    ".bvecs": np.dtype("u1"),
}


def read(path: Path) -> Iterator[Rows]:
    """Rows get their number as id. InvalidQuery if the file is not whole vectors of one dimension."""
    kind = _KINDS[path.suffix.lower()]
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb") as file:
        head = file.read(4)
    dim = int.from_bytes(head, "little", signed=True) if len(head) == 4 else 0
    if not 1 <= dim <= MAX_DIM:
        raise refuse(path, "row 0", f"its dimension is {dim}; from 1 to {MAX_DIM} makes sense")
    width = 4 + dim * kind.itemsize
    if size % width:
        raise InvalidQuery(f"{path.name}: {size} bytes are not whole vectors of {dim} ({width} bytes each)")
    data = np.memmap(path, np.uint8, "r").reshape(-1, width)
    for start in range(0, len(data), BATCH_ROWS):
        part = np.ascontiguousarray(data[start : start + BATCH_ROWS])
        dims = part[:, :4].copy().view("<i4")[:, 0]
        if (dims != dim).any():
            row = int(np.argmax(dims != dim))
            raise refuse(path, f"row {start + row}", f"it has {dims[row]} dimensions, the first {dim}")
        vectors = part[:, 4:].copy().view(kind).astype(np.float32)
        ids = [str(start + row) for row in range(len(vectors))]
        yield Rows(ids, vectors, [None] * len(ids), [None] * len(ids), start)


def write(batches: Iterator[Rows], path: Path) -> None:
    """fvecs: vectors alone."""
    if path.suffix.lower() != ".fvecs":
        raise InvalidQuery(f"{path.name}: vectors are written as .fvecs")
    with path.open("wb") as file:
        for rows in batches:
            dims = np.full((len(rows), 1), rows.vectors.shape[1], "<i4")
            file.write(np.concatenate([dims.view("<f4"), rows.vectors.astype("<f4")], axis=1).tobytes())
