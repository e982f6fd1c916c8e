"""What a caller hands in, checked and brought into the form that is stored. Errors name the row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stores.errors import DimensionMismatch, InvalidQuery, InvalidRow, InvalidVector
from stores.schema import Schema
from stores.segment.batch import Batch
from stores.segment.jsontext import encode_metadata, encode_text
from stores.segment.sparse import encode_sparse
from stores.segment.view import Float32

MAX_ID_BYTES = 1024
# Squared lengths between which float32 loses nothing of them.
_SMALL, _LARGE = 1e-20, 1e30
# How far from 1 rounding leaves the squared length of a unit vector.
_UNIT = 1e-6


def make_batch(
    schema: Schema,
    ids: Sequence[str],
    vectors: ArrayLike,
    metadata: Sequence[Mapping[str, Any] | None] | None,
    texts: Sequence[str | None] | None,
    sparse: Sequence[Mapping[int, float] | None] | None,
) -> Batch:
    """A batch ready for the log; nothing of it is shared with the caller."""
    encoded = encode_ids(ids)
    if len(set(encoded)) != len(encoded):
        repeated, row = _first_repeat(encoded)
        raise InvalidRow(row, f"id {ids[row]!r} is also row {repeated}'s; send each id once in a batch")
    rows = stored_rows(schema, vectors)
    for name, column in (("vectors", rows), ("metadata", metadata), ("texts", texts), ("sparse", sparse)):
        if column is not None and len(column) != len(encoded):
            raise InvalidQuery(f"{name} has {len(column)} rows, ids has {len(encoded)}; give one for each id")
    none: list[bytes | None] = [None] * len(encoded)
    return Batch(
        encoded,
        none if metadata is None else [encode_metadata(row, value) for row, value in enumerate(metadata)],
        none if texts is None else [_optional_text(row, text) for row, text in enumerate(texts)],
        rows,
        [encode_sparse(row, value) for row, value in enumerate(sparse)] if sparse is not None else (),
    )


def _optional_text(row: int, text: str | None) -> bytes | None:
    return None if text is None else encode_text(row, text)


def encode_ids(ids: Sequence[str]) -> list[bytes]:
    """UTF-8 ids. InvalidRow for what is not text, empty or too long."""
    if isinstance(ids, str | bytes):
        raise InvalidQuery("ids must be a list of texts, not one text")
    try:
        encoded = [id.encode() for id in ids]
    except (AttributeError, UnicodeEncodeError):
        encoded = [encode_text(row, id, "the id") for row, id in enumerate(ids)]  # names the row
    lengths = list(map(len, encoded))
    if lengths and not (min(lengths) >= 1 and max(lengths) <= MAX_ID_BYTES):
        row = next(row for row, length in enumerate(lengths) if not 1 <= length <= MAX_ID_BYTES)
        raise InvalidRow(row, f"an id has 1 to {MAX_ID_BYTES} bytes, this one {lengths[row]}")
    return encoded


def _first_repeat(encoded: Sequence[bytes]) -> tuple[int, int]:
    """(first row, later row) of an id that occurs twice."""
    seen: dict[bytes, int] = {}
    for row, id in enumerate(encoded):
        if id in seen:
            return seen[id], row
        seen[id] = row
    raise ValueError("no id occurs twice")


def stored_rows(schema: Schema, vectors: ArrayLike) -> Float32:
    """`unit_rows` of `check_vectors`, whose squares are summed once."""
    if schema.metric != "cosine":
        return check_vectors(schema, vectors)
    return _unit(*_checked(schema, vectors))


def check_vectors(schema: Schema, vectors: ArrayLike) -> Float32:
    """float32 (rows, dim), finite; for hamming words of packed bits. DimensionMismatch, InvalidVector."""
    return _check_bits(schema, vectors) if schema.metric == "hamming" else _checked(schema, vectors)[0]


def _checked(schema: Schema, vectors: ArrayLike) -> tuple[Float32, Float32]:
    """The rows and their squared lengths."""
    try:
        with np.errstate(over="ignore"):
            # A copy always: what is logged and what is kept must be the same, whatever the caller does next.
            array = np.array(vectors, np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"vectors must be numbers in rows of one length: {error}") from error
    if array.size == 0 and array.ndim < 3:
        array = array.reshape(0, schema.dim)
    if array.ndim != 2:
        raise InvalidQuery(f"vectors must be a matrix (rows, {schema.dim}), not of shape {array.shape}")
    if array.shape[1] != schema.dim:
        raise DimensionMismatch(
            f"vectors have {array.shape[1]} dimensions, the collection {schema.dim}; "
            "use the model that it was made with, or another collection"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", array, array)
        # Any NaN or infinity spoils the sum; large ones as well, so then each is looked at.
        spoilt = not np.isfinite(squares.sum())
    if spoilt and not (finite := np.isfinite(array).all(axis=1)).all():
        raise InvalidVector(int(np.argmin(finite)), "the vector holds NaN, an infinity or a number too large")
    return array, squares


def _check_bits(schema: Schema, vectors: ArrayLike) -> Float32:
    """uint8 (rows, dim / 8) -> float32 (rows, width) of the same bits, zeros after them."""
    size = schema.dim // 8
    try:
        array = np.asarray(vectors)
        if array.size == 0 and array.ndim < 3:
            array = np.zeros((0, size), np.uint8)
        inside = (array >= 0) & (array <= 255) if array.dtype.kind in "iuf" else np.zeros(1, np.bool_)
        whole = bool((inside & (array == np.floor(array))).all()) if inside.all() else False
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"vectors must be bytes in rows of one length: {error}") from error
    if not whole or array.ndim != 2:
        raise InvalidQuery(f"hamming vectors are a matrix of bytes (rows, {size}): see numpy.packbits")
    if array.shape[1] != size:
        raise DimensionMismatch(
            f"vectors have {array.shape[1]} bytes, the collection {size} ({schema.dim} bits); "
            "use the model that it was made with, or another collection"
        )
    words = np.zeros((len(array), 4 * schema.width), np.uint8)
    words[:, :size] = array
    return words.view(np.float32)


def as_given(schema: Schema, row: Float32) -> NDArray[Any]:
    """A stored row as the caller sees it: float32 (dim,), or for hamming uint8 (dim / 8,)."""
    return row.view(np.uint8)[: schema.dim // 8] if schema.metric == "hamming" else row


def unit_rows(schema: Schema, rows: Float32) -> Float32:
    """For cosine, rows of length 1; otherwise `rows`. InvalidVector for zeros, which have no direction."""
    if schema.metric != "cosine":
        return rows
    with np.errstate(over="ignore"):
        return _unit(rows, np.einsum("nd,nd->n", rows, rows))


def _unit(rows: Float32, squares: Float32) -> Float32:
    if len(squares) and not (squares.min() > _SMALL and squares.max() < _LARGE):
        # In float64, so that neither tiny nor huge components lose the length.
        squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
        if squares.min() == 0:
            raise InvalidVector(
                int(np.argmin(squares)), "the vector is all zeros, which has no cosine with anything"
            )
    elif len(squares) == 0 or np.abs(squares - 1).max() < _UNIT:
        return rows
    unit: Float32 = (rows / np.sqrt(squares)[:, None]).astype(np.float32, copy=False)
    return unit
