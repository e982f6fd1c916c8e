"""A file's bytes to pages of text, read in a child process that cannot take the server down.

The parsers work on untrusted bytes: they may crash, hang or eat memory, and a Python thread cannot be
killed. So each file is read by a short-lived process with limits (`worker`), which answers in JSON.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine.errors
from engine.documents.limits import ParseLimits
from engine.errors import DamagedDocument, DocumentError, DocumentTooLarge

_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from engine.documents.worker import main; main()"
_REFUSALS: dict[str, type[DocumentError]] = {
    name: getattr(engine.errors, name)
    for name in (
        "DamagedDocument",
        "DocumentTooLarge",
        "EncryptedDocument",
        "ScannedDocument",
        "UnsupportedDocument",
    )
}


@dataclass(frozen=True)
class Page:
    """One page: `number` is 1-based and physical, offsets in `text` are what citations count by."""

    number: int
    text: str


@dataclass(frozen=True)
class ParsedDocument:
    """The text of one file. A page that could not be read has empty text and a line in `warnings`."""

    name: str
    media_type: str
    sha256: str
    pages: tuple[Page, ...]
    warnings: tuple[str, ...] = ()


def parse_document(
    name: str, data: bytes, *, limits: ParseLimits | None = None, password: str | None = None
) -> ParsedDocument:
    """Reads a PDF, HTML, Markdown or text file; the kind is taken from the bytes, then from the name.

    Thread-safe; blocks for at most `limits.max_seconds` and a little. HTML and text are one page.

        >>> document = parse_document("notes.md", b"# Larch\\nA conifer that sheds its needles.")
        >>> document.pages[0].number, document.media_type
        (1, 'text/markdown')

    Raises:
        DocumentError: always one of UnsupportedDocument, EncryptedDocument, ScannedDocument,
            DamagedDocument and DocumentTooLarge, with `name` at the start of its one line.
    """
    limits = limits or ParseLimits()
    if len(data) > limits.max_bytes:
        raise DocumentTooLarge(name, f"is {len(data):,} bytes; the limit is {limits.max_bytes:,}")
    answer = _run_worker(name, data, limits, password)
    if "error" in answer:
        raise _REFUSALS.get(answer["error"], DamagedDocument)(name, str(answer["reason"]))
    pages = tuple(Page(number, text) for number, text in enumerate(answer["pages"], start=1))
    digest = hashlib.sha256(data).hexdigest()
    return ParsedDocument(name, answer["media_type"], digest, pages, tuple(answer["warnings"]))


def _run_worker(name: str, data: bytes, limits: ParseLimits, password: str | None) -> dict[str, Any]:
    header = {"name": name, "password": password, "limits": dataclasses.asdict(limits)}
    command = [sys.executable, "-I", "-X", "utf8", "-c", _START, _ROOT]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        try:
            output, _ = child.communicate(json.dumps(header).encode() + b"\n" + data, limits.max_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            raise DocumentTooLarge(name, f"takes longer than {limits.max_seconds:g} s to read") from None
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        raise _died(name, child.returncode, limits) from None
    return answer


def _died(name: str, status: int, limits: ParseLimits) -> DocumentError:
    """A reader that ended without an answer: out of its limits (SIGKILL, SIGXCPU) or crashed."""
    if status in (-9, -24):
        return DocumentTooLarge(name, f"takes more than {limits.max_seconds:g} s of processor time to read")
    return DamagedDocument(name, f"cannot be read: its reader stopped with status {status}")
