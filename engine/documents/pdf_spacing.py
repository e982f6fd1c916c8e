"""Two corrections of how pypdf 7.1 finds the gaps between words; without them words merge or split.

- A composite font (Type0) may hold no space glyph: the gap is then a number between two strings. pypdf
  takes character 32 for the space of such a font, which as a glyph number is any letter or sign, and
  its width as the gap to look for. Two words in three of a TeX manual (debian-faq) ran together.
- Word spacing (`Tw`, how ghostscript and groff justify a line) is left out of a string's width, so the
  next string on the line seems to stand apart: "e xecuted" for "executed".
"""

from functools import cache
from typing import Any

from pypdf._text_extraction._text_extractor import TextExtraction
from pypdf.generic import DictionaryObject
from pypdf.generic._font import Font

_FONT_FACTORY = "from_font_resource"
_SHOW_TEXT = "_handle_tj"


@cache
def correct_word_gaps() -> None:
    """Changes pypdf for the whole process: called in the reading process only."""
    setattr(Font, _FONT_FACTORY, staticmethod(_font_with_true_space))
    setattr(TextExtraction, _SHOW_TEXT, _show_text_with_word_spacing)


_original_font = Font.from_font_resource
_original_show_text = TextExtraction._handle_tj


def _font_with_true_space(resource: DictionaryObject) -> Font:
    """A font without a space gets pypdf's default gap, as its space matches no character."""
    font = _original_font(resource)
    if isinstance(font.encoding, str) and font.character_map and " " not in font.character_map.values():
        font.space_char = ""
    return font


def _show_text_with_word_spacing(self: TextExtraction, text: str, operands: list[Any], *rest: Any) -> Any:
    """Counts `Tw` for each code 32 of a simple font (PDF 32000-1, 9.3.3), in pypdf's unit of 1/1000."""
    shown, rtl, size = _original_show_text(self, text, operands, *rest)
    word_spacing = self.space_scale - 1.0
    if word_spacing and operands and isinstance(self.font.encoding, dict):
        raw = operands[0]
        spaces = raw.count(b" ") if isinstance(raw, bytes) else raw.count(" ")
        size["str_widths"] += 1000.0 * word_spacing * spaces
    return shown, rtl, size
