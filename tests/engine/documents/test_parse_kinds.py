"""Which parser a file gets: by its bytes, then by its name; text files and what is none of these."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.documents import parse
from engine.documents.normalise import normalise
from engine.documents.parse import parse_document
from engine.errors import DamagedDocument, UnsupportedDocument
from tests.engine.documents.builders import pdf

HTML = b"<!doctype html><title>t</title><p>The larch sheds its needles.</p>"


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("larch.txt", pdf("The larch sheds its needles."), "application/pdf"),
        ("larch", pdf("The larch sheds its needles."), "application/pdf"),
        ("larch.html", b"\n" + pdf("The larch sheds its needles."), "application/pdf"),
        ("larch.pdf", HTML, "text/html"),
        ("larch.txt", b"<!-- saved -->\n" + HTML, "text/html"),
        ("larch.htm", b"<p>The larch sheds its needles.", "text/html"),
        ("larch.md", b"<p>The larch</p> sheds *its* needles.", "text/markdown"),
        ("larch.md", b"A file that starts with `%PDF-1.7` is a PDF.", "text/markdown"),
        ("larch", b"The larch sheds its needles.", "text/plain"),
    ],
)
def test_kind_is_taken_from_the_bytes_then_from_the_name(name, data, media_type):
    document = parse_document(name, data)
    assert document.media_type == media_type and document.pages[0].text.strip()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04" + b"\x00" * 60, "ZIP"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 60, "PNG"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 60, "JPEG"),
        (bytes(range(256)) * 8, "binary"),
    ],
)
def test_other_files_are_refused_and_named(data, what):
    with pytest.raises(UnsupportedDocument, match=what):
        parse_document("file.txt", data)


@pytest.mark.parametrize("data", [b"", b"   \n\t \n", b"\x00" * 100])
def test_empty_text_is_damaged(data):
    with pytest.raises(DamagedDocument):
        parse_document("empty.txt", data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "windows-1252"])
def test_text_encodings(encoding):
    assert parse_document("a.txt", "Grün, “so”".encode(encoding)).pages[0].text == "Grün, “so”"


def test_damaged_text_never_gives_invalid_unicode():
    text = parse_document("a.txt", b"\xff\xfea\x00\x00\xd8b\x00").pages[0].text
    assert text.encode() and text[0] == "a" and text[-1] == "b"


def test_a_name_with_odd_characters_starts_the_message():
    with pytest.raises(DamagedDocument) as caught:
        parse_document("Übung «1».pdf", b"")
    assert str(caught.value) == "Übung «1».pdf: is empty (0 bytes)"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("e\ufb03cient \ufb01sh", "efficient fish"),
        ("hy\xad\nphen and hy-\nphen", "hyphen and hy-\nphen"),
        ("a\xa0\u2003b\tc  \nd", "a b\tc\nd"),
        ("a\r\nb\rc\x0cd", "a\nb\nc\nd"),
        ("a\n\n\n\nb\n", "a\n\nb"),
        ("cafe\u0301 \ud800 x\x00y\u200bz", "café \ufffd xyz"),
    ],
)
def test_text_is_normalised_once_and_for_all(raw, expected):
    assert normalise(raw) == expected == normalise(expected)


def test_reading_process_loads_no_numerics():
    """A child process per file is only cheap while it stays without JAX and NumPy."""
    code = (
        "import sys, engine.documents.worker, engine.documents.pdf, engine.documents.html\n"
        "print(sorted({'jax', 'numpy', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_many_files_at_once_from_threads():
    texts = [f"The larch number {n} sheds its needles." for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        documents = list(pool.map(lambda text: parse_document("a.pdf", pdf(text)), texts))
    assert [document.pages[0].text for document in documents] == texts


def test_reader_that_dies_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(parse, "_START", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(DamagedDocument, match="its reader stopped"):
        parse_document("a.txt", b"The larch sheds its needles.")
