"""NumPy's .npy (a matrix) and .npz (vectors, and ids, metadata, texts, sparse vectors if there are any).

Rows without ids get their number. Nothing is unpickled: texts are arrays of text, metadata JSON in text.
Sparse vectors are compressed sparse rows as SciPy's: row i has `sparse_indices` and `sparse_data` from
`sparse_indptr[i]` to `sparse_indptr[i + 1]`.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stores.errors import InvalidQuery
from stores.interchange.rows import BATCH_ROWS, Rows, refuse

MOST_NPZ_BYTES = 8 << 30
_SPARSE = ("sparse_indptr", "sparse_indices", "sparse_data")


def read_npy(path: Path) -> Iterator[Rows]:
    """Mapped, so larger than memory is fine."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidQuery(f"{path.name}: not a NumPy array: {error}") from error
    yield from _batches(path, {"vectors": vectors})


def read_npz(path: Path) -> Iterator[Rows]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_NPZ_BYTES:
            most = MOST_NPZ_BYTES >> 30
            raise InvalidQuery(f"{path.name}: {size >> 30} GiB unpacked, the most is {most}; use .npy")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidQuery(f"{path.name}: not NumPy arrays: {error}") from error
    if "vectors" not in arrays:
        raise InvalidQuery(f"{path.name}: no array 'vectors'; it has {', '.join(sorted(arrays)) or 'none'}")
    yield from _batches(path, arrays)


def _batches(path: Path, arrays: dict[str, NDArray[Any]]) -> Iterator[Rows]:
    vectors = arrays["vectors"]
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        found = f"{vectors.dtype} {vectors.shape}"
        raise InvalidQuery(f"{path.name}: vectors must be a matrix of numbers, not {found}")
    for name in ("ids", "metadata", "texts"):
        if name in arrays and arrays[name].shape != vectors.shape[:1]:
            shape = arrays[name].shape
            raise InvalidQuery(f"{path.name}: {name} has shape {shape}, vectors {len(vectors)} rows")
    sparse = _sparse(path, arrays, len(vectors))
    for start in range(0, len(vectors), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(vectors[part], np.float32)
        ids = arrays["ids"][part].tolist() if "ids" in arrays else range(start, start + len(rows))
        texts = arrays["texts"][part].tolist() if "texts" in arrays else [None] * len(rows)
        yield Rows(
            [str(id) for id in ids],
            rows,
            _metadata(path, start, arrays, part, len(rows)),
            [text or None for text in texts],
            start,
            None if sparse is None else [sparse(row) for row in range(start, start + len(rows))],
        )


def _sparse(
    path: Path, arrays: dict[str, NDArray[Any]], count: int
) -> Callable[[int], dict[int, float] | None] | None:
    """What gives a row's sparse vector; None if the file has none."""
    if not any(name in arrays for name in _SPARSE):
        return None
    if missing := [name for name in _SPARSE if name not in arrays]:
        raise InvalidQuery(f"{path.name}: no array {missing[0]!r} beside the other sparse ones")
    indptr, indices, data = (arrays[name] for name in _SPARSE)
    fits = (
        indptr.shape == (count + 1,)
        and indices.ndim == 1
        and indices.shape == data.shape
        and indptr.dtype.kind in "iu"
        and indices.dtype.kind in "iu"
        and data.dtype.kind in "fiu"
        and indptr[0] == 0
        and indptr[-1] == len(data)
        and bool((indptr[1:] >= indptr[:-1]).all())
    )
    if not fits:
        raise InvalidQuery(f"{path.name}: the sparse arrays are not the compressed rows of {count} vectors")

    def of(row: int) -> dict[int, float] | None:
        part = slice(int(indptr[row]), int(indptr[row + 1]))
        return dict(zip(indices[part].tolist(), data[part].tolist(), strict=True)) or None

    return of


def _metadata(path: Path, start: int, arrays: dict[str, NDArray[Any]], part: slice, count: int) -> list[Any]:
    if "metadata" not in arrays:
        return [None] * count
    found = []
    for number, text in enumerate(arrays["metadata"][part].tolist()):
        try:
            found.append(json.loads(text) if text else None)
        except (ValueError, TypeError) as error:
            raise refuse(path, f"row {start + number}", f"metadata is not JSON: {error}") from error
    return found


def write_npy(batches: Iterator[Rows], path: Path, dim: int) -> None:
    """Vectors alone. The header, which says how many there are, is written again at the end."""
    count = 0
    with path.open("wb") as file:
        _write_header(file, 0, dim)
        for rows in batches:
            file.write(rows.vectors.astype("<f4").tobytes())
            count += len(rows)
        file.seek(0)
        _write_header(file, count, dim)


def _write_header(file: BinaryIO, count: int, dim: int) -> None:
    """Version 1.0 with the row count padded, so that its length does not depend on it."""
    body = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {dim}), }}"
    file.write(np.lib.format.magic(1, 0) + (118).to_bytes(2, "little") + body.ljust(117).encode() + b"\n")


def write_npz(batches: Iterator[Rows], path: Path) -> None:
    """Everything; all of it is in memory at once."""
    parts = list(batches)
    texts = [text or "" for rows in parts for text in rows.texts]
    metadata = [json.dumps(value) if value else "" for rows in parts for value in rows.metadata]
    vectors = [rows.vectors for rows in parts]
    sparse = [entries or {} for rows in parts for entries in rows.sparse or [None] * len(rows)]
    compressed: dict[str, Any] = {
        "sparse_indptr": np.cumsum([0, *map(len, sparse)]),
        "sparse_indices": np.array([index for entries in sparse for index in entries], np.uint32),
        "sparse_data": np.array([weight for entries in sparse for weight in entries.values()], np.float32),
    }
    with path.open("wb") as file:
        np.savez(
            file,
            vectors=np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32),
            ids=np.array([id for rows in parts for id in rows.ids], dtype=np.str_),
            metadata=np.array(metadata, dtype=np.str_),
            texts=np.array(texts, dtype=np.str_),
            **(compressed if any(sparse) else {}),
        )
