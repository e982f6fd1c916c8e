"""PDF to pages of text with pypdf, inside limits. Runs in the reading process only."""

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pypdf
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError, PyPdfError

from engine.documents.failure import Unreadable, damaged, encrypted, scanned, too_large
from engine.documents.limits import ParseLimits
from engine.documents.normalise import normalise
from engine.documents.pdf_spacing import correct_word_gaps

_SCANNED_CHARS_PER_PAGE = 20
_TRAILER = re.compile(rb"startxref\s+(\d+)\s+%%EOF")
_LINEARIZED = re.compile(rb"/Linearized\b[^>]{0,200}?/L\s+(\d+)")
_OBJECT = re.compile(rb"\d+\s+\d+\s+obj\b|\bendobj\b|\bendstream\b")


def pdf_pages(data: bytes, limits: ParseLimits, password: str | None) -> tuple[list[str], list[str]]:
    """(normalised text of every page, warnings about pages that could not be read).

    Raises `Unreadable` with the kinds DamagedDocument, EncryptedDocument, ScannedDocument or
    DocumentTooLarge; nothing that pypdf raises gets past here.
    """
    logging.disable(logging.CRITICAL)
    correct_word_gaps()
    refuse_truncated(data)
    try:
        with pypdf.apply_configuration(configuration(limits)):
            return _read(data, limits, password)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise _explain(error) from error


def configuration(limits: ParseLimits) -> pypdf.Configuration:
    """pypdf's own limits, lowered to ours; no outside program is called."""
    most = limits.max_stream_bytes
    return pypdf.Configuration(
        maximum_declared_stream_length=most,
        array_based_stream_maximum_output_length=most,
        lzw_maximum_output_length=most,
        run_length_maximum_output_length=most,
        zlib_maximum_output_length=most,
        brotli_maximum_output_length=most,
        jbig2_maximum_output_length=most,
        stream_decoding_work_maximum_length=3 * most,
        stream_parsing_work_maximum_count=1_000_000,
        page_tree_maximum_entries=4 * limits.max_pages,
        xform_maximum_invocations_per_extraction=1000,
        jbig2dec_binary=None,
        disable_legacy_handling=True,
    )


def refuse_truncated(data: bytes) -> None:
    """Raises DamagedDocument when the end of the file is missing.

    A PDF ends with `startxref`, an offset and `%%EOF`; readers tolerate any junk behind that. A cut
    file has no such end, or only that of an earlier revision or of a linearized file's first page:
    then objects follow it, its offset is 0, or the file is shorter than its linearization says.
    """
    trailers = list(_TRAILER.finditer(data))
    linearized = _LINEARIZED.search(data[:2048])
    if not trailers:
        raise damaged("is truncated: the end of the PDF is missing")
    last = trailers[-1]
    shorter = linearized is not None and int(linearized[1]) > len(data) + 1
    if shorter or int(last[1]) == 0 or int(last[1]) >= len(data) or _OBJECT.search(data, last.end()):
        raise damaged("is truncated: the PDF ends in the middle of its objects")


def _read(data: bytes, limits: ParseLimits, password: str | None) -> tuple[list[str], list[str]]:
    reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
    _unlock(reader, password)
    count = len(reader.pages)
    if count == 0:
        raise damaged("has no pages")
    if count > limits.max_pages:
        raise too_large(f"has {count:,} pages; the limit is {limits.max_pages:,}")
    pages, failures = _extract(reader, count, limits)
    _refuse_scanned(reader, pages)
    return pages, failures


def _unlock(reader: pypdf.PdfReader, password: str | None) -> None:
    """pypdf has tried the empty password already; a given one is tried as well."""
    if not reader.is_encrypted:
        return
    if password is not None and reader.decrypt(password):
        return
    try:
        _ = reader.pages[0]
    except FileNotDecryptedError:
        wrong = "the password given does not open it" if password else "a password is needed to open it"
        raise encrypted(f"is encrypted: {wrong}") from None


def _extract(reader: pypdf.PdfReader, count: int, limits: ParseLimits) -> tuple[list[str], list[str]]:
    pages: list[str] = []
    failures: list[str] = []
    total = 0
    for number in range(1, count + 1):
        try:
            text = normalise(reader.pages[number - 1].extract_text())
        except MemoryError:
            raise
        except Exception as error:
            if number == count == len(failures) + 1:
                raise _explain(error, number) from error
            text = ""
            failures.append(f"page {number} cannot be read: {_describe(error)}")
        total += len(text)
        if total > limits.max_characters:
            raise too_large(f"holds more than {limits.max_characters:,} characters (page {number})")
        pages.append(text)
    return pages, failures


def _refuse_scanned(reader: pypdf.PdfReader, pages: list[str]) -> None:
    characters = sum(len(text) - text.count(" ") - text.count("\n") for text in pages)
    if characters >= _SCANNED_CHARS_PER_PAGE * len(pages):
        return
    pictures = sum(_has_image(page) for page in reader.pages)
    if characters == 0 or pictures * 2 >= len(pages):
        what = "pictures" if pictures else "drawings"
        raise scanned(f"holds no text: its {len(pages)} page(s) are {what}; run OCR on it first")


def _has_image(page: Any) -> bool:
    try:
        return any(True for _ in _images(page.get("/Resources"), depth=0)) or _inline_image(page)
    except Exception:
        return False


def _images(resources: Any, depth: int) -> Iterator[Any]:
    """Image XObjects of a page, also those inside forms, without decoding any."""
    resources = resources.get_object() if resources is not None else {}
    objects = resources.get("/XObject")
    for reference in (objects.get_object() if objects is not None else {}).values():
        drawn = reference.get_object()
        if drawn.get("/Subtype") == "/Image":
            yield drawn
        elif depth < 4:
            yield from _images(drawn.get("/Resources"), depth + 1)


def _inline_image(page: Any) -> bool:
    contents = page.get_contents()
    return contents is not None and re.search(rb"\bBI\s.*?\bID\s", contents.get_data(), re.S) is not None


def _explain(error: Exception, page: int | None = None) -> Unreadable:
    detail = _describe(error) + (f" (page {page})" if page else "")
    if isinstance(error, LimitReachedError):
        return too_large(f"goes past a safety limit: {detail}")
    if isinstance(error, FileNotDecryptedError):
        return encrypted("is encrypted: a password is needed to open it")
    if isinstance(error, DependencyError):
        return encrypted(f"is encrypted in a way that needs another package: {detail}")
    if isinstance(error, PyPdfError):
        return damaged(f"is a damaged PDF: {detail}")
    return damaged(f"is a damaged PDF: {type(error).__name__}: {detail}")


def _describe(error: Exception) -> str:
    """The first line of an exception, short enough for one line on a terminal."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first if len(first) <= 160 else first[:157] + "..."
