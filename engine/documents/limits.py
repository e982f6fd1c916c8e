"""How much of the machine one untrusted file may use while it is read."""

from dataclasses import dataclass

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class ParseLimits:
    """Bounds for reading one file; past any of them the file is refused with `DocumentTooLarge`.

    Args:
        max_bytes: size of the file.
        max_html_bytes: size of an HTML or text file: HTML trees cost some 20 times their source.
        max_pages: pages of a PDF; also stops one page that is referenced thousands of times.
        max_seconds: wall-clock time, and CPU time, of the reading process.
        max_memory: address space of the reading process in bytes (where the system can enforce it).
        max_characters: text of the whole document.
        max_depth: HTML elements open at once; the time of HTML parsing grows with its square.
        max_attributes: attributes of one HTML element; grows with the square as well.
        max_stream_bytes: output of any one compressed PDF stream.
    """

    max_bytes: int = 128 * MEGABYTE
    max_html_bytes: int = 16 * MEGABYTE
    max_pages: int = 5000
    max_seconds: float = 120.0
    max_memory: int = 2048 * MEGABYTE
    max_characters: int = 20_000_000
    max_depth: int = 4000
    max_attributes: int = 2000
    max_stream_bytes: int = 48 * MEGABYTE
