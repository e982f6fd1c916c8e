"""One form of text for pages: applied before any character offset is taken, and never after.

Quotations, passages and the user's browser all count characters of the result.
"""

import re
import unicodedata

_LIGATURES = {
    0xFB00: "ff",
    0xFB01: "fi",
    0xFB02: "fl",
    0xFB03: "ffi",
    0xFB04: "ffl",
    0xFB05: "st",
    0xFB06: "st",
}
_INVISIBLE = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xAD))
_CONTROLS = dict.fromkeys(c for c in (*range(0x20), *range(0x7F, 0xA0)) if c not in (0x09, 0x0A))
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_TABLE: dict[int, str | None] = {**_SURROGATES, **_CONTROLS, **_INVISIBLE, **_LIGATURES}

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SOFT_BREAK = re.compile("\u00ad[ \t]*\n[ \t]*")
_SPACES = re.compile(r"[^\S\t\n]+")
_TRAILING = re.compile(r"[ \t]+(?=\n|$)")
_BLANK_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """Plain text with `\\n` line ends: ligatures spelled out, odd spaces plain, invisible marks gone.

    A word broken by a soft hyphen is joined; hard hyphens and line breaks stay, as they may be meant.
    Idempotent, and its result is always valid UTF-8.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _SOFT_BREAK.sub("", text).translate(_TABLE)
    text = unicodedata.normalize("NFC", text)
    text = _SPACES.sub(" ", text)
    text = _TRAILING.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip("\n")
