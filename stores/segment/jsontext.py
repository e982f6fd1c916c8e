"""Metadata and texts as the bytes that are stored."""

import json
from typing import Any

from stores.errors import InvalidRow

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder()


def encode_metadata(row: int, metadata: Any) -> bytes | None:
    """JSON text of one row's metadata; None for None. InvalidRow for what JSON cannot hold."""
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise InvalidRow(row, "metadata must be an object with text keys")
    try:
        return _ENCODER.encode(metadata).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRow(row, f"metadata must be JSON: {error}") from error


def decode_metadata(data: bytes | None) -> dict[str, Any]:
    """The object that was stored; empty if none was."""
    return dict(_DECODER.raw_decode(data.decode())[0]) if data else {}


def encode_text(row: int, text: Any, what: str = "text") -> bytes:
    """UTF-8. InvalidRow for anything but text that Unicode can encode."""
    if not isinstance(text, str):
        raise InvalidRow(row, f"{what} must be text, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRow(row, f"{what} holds a lone surrogate at character {error.start}") from error


def decode_text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()
