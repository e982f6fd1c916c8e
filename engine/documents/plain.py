"""Bytes of unknown encoding to text: byte-order mark, then a declared charset, UTF-8, windows-1252."""

import codecs

from engine.documents.failure import damaged, unsupported
from engine.documents.normalise import normalise

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x1b\x08")
_MAX_CONTROL_SHARE = 0.01
_FALLBACK = "windows-1252"


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`. Never fails: what no encoding explains becomes U+FFFD."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "replace")
    for name in (declared, "utf-8"):
        try:
            if name:
                return data.decode(name)
        except (LookupError, UnicodeError):
            continue
    return data.decode(_FALLBACK, "replace")


def plain_text(data: bytes) -> str:
    """The normalised text of a plain or Markdown file. Raises `Unreadable` when it is binary."""
    if not data.startswith(tuple(bom for bom, _ in _BOMS)) and _looks_binary(data):
        raise unsupported("is a binary file; Tarsia reads PDF, HTML, Markdown and plain text")
    text = normalise(decode(data))
    if not text.strip():
        raise damaged("holds no text")
    return text


def _looks_binary(data: bytes) -> bool:
    sample = data[:65536]
    controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in sample)
    return b"\x00" in sample or controls > _MAX_CONTROL_SHARE * len(sample)
