"""What kind of file the bytes are: by content first, by name only where content does not tell."""

import re

from engine.documents.failure import damaged, unsupported

PDF = "application/pdf"
HTML = "text/html"
MARKDOWN = "text/markdown"
TEXT = "text/plain"

_PDF_HEADER_REACH = 1024
_HTML_START = re.compile(
    rb"(?:<!--.*?-->|<\?xml[^>]*>|\s)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_TAG = re.compile(rb"<(?:html|head|body|title|meta|div|p|h[1-6]|table|ul|main|article)\b", re.I)
_HTML_NAMES = (".html", ".htm", ".xhtml", ".xht")
_MARKDOWN_NAMES = (".md", ".markdown")
_KNOWN_BINARY = (
    (b"PK\x03\x04", "a ZIP container (Word, Excel, EPUB or an archive)"),
    (b"\xd0\xcf\x11\xe0", "an old Microsoft Office file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"{\\rtf", "an RTF file"),
    (b"%!PS", "a PostScript file"),
    (b"\x7fELF", "a program"),
)


def media_type(name: str, data: bytes) -> str:
    """One of PDF, HTML, MARKDOWN, TEXT. Raises `Unreadable` for an empty file or a known other kind."""
    if not data.strip(b"\x00\t\n\r "):
        raise damaged("is empty (0 bytes)" if not data else "is blank: it holds only spaces or zero bytes")
    lower = name.lower()
    if _is_pdf(lower, data):
        return PDF
    for magic, what in _KNOWN_BINARY:
        if data.startswith(magic):
            raise unsupported(f"is {what}; Tarsia reads PDF, HTML, Markdown and plain text")
    if _is_html(lower, data):
        return HTML
    if lower.endswith(".pdf"):
        raise damaged("is not a PDF: it has no %PDF header")
    return MARKDOWN if lower.endswith(_MARKDOWN_NAMES) else TEXT


def _is_pdf(name: str, data: bytes) -> bool:
    """Readers accept the header anywhere in the first 1024 bytes; a text that mentions it is no PDF."""
    if data.lstrip(b"\xef\xbb\xbf\x00\t\n\r ").startswith(b"%PDF-"):
        return True
    return b"%PDF-" in data[:_PDF_HEADER_REACH] and (name.endswith(".pdf") or b"startxref" in data)


def _is_html(name: str, data: bytes) -> bool:
    head = data[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    if _HTML_START.match(head.removeprefix(b"\xef\xbb\xbf")):
        return True
    if name.endswith(_HTML_NAMES):
        return _TAG.search(data) is not None or b"<" in head
    return False
