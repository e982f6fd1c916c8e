"""PDF files as they are met: good, locked, scanned, cut short, hostile."""

import time
import zlib
from pathlib import Path

import pytest

from engine.documents.failure import Unreadable
from engine.documents.limits import ParseLimits
from engine.documents.parse import parse_document
from engine.documents.pdf import refuse_truncated
from engine.errors import (
    DamagedDocument,
    DocumentError,
    DocumentTooLarge,
    EncryptedDocument,
    ScannedDocument,
)
from tests.engine.documents.builders import (
    assemble,
    content,
    locked,
    pdf,
    pdf_of_streams,
    revised,
    scanned_pdf,
    stream,
)

EXAMPLES = Path(__file__).parents[3] / "examples" / "documents"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "documents"
REAL = {
    "as written": EXAMPLES / "larchfield-handbook.pdf",
    "linearized": FIXTURES / "handbook-linearized.pdf",
}
TEXT = "The larch is a conifer that sheds its needles in the autumn."
OAK = "An oak gives acorns only after some forty years of growth."


def test_pages_are_numbered_from_one_and_keep_their_text():
    document = parse_document("trees.pdf", pdf(TEXT, OAK))
    assert document.media_type == "application/pdf"
    assert [(page.number, page.text) for page in document.pages] == [(1, TEXT), (2, OAK)]
    assert len(document.sha256) == 64 and document.warnings == ()


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_encrypted_pdf_needs_its_password(algorithm):
    data = locked(pdf(TEXT), user="acorn", algorithm=algorithm)
    with pytest.raises(EncryptedDocument, match=r"^a\.pdf: is encrypted: a password is needed"):
        parse_document("a.pdf", data)
    with pytest.raises(EncryptedDocument, match="does not open it"):
        parse_document("a.pdf", data, password="beech")
    assert parse_document("a.pdf", data, password="acorn").pages[0].text == TEXT


def test_pdf_locked_with_the_empty_password_opens_by_itself():
    assert parse_document("a.pdf", locked(pdf(TEXT), user="")).pages[0].text == TEXT


def test_password_for_an_open_pdf_is_ignored():
    assert parse_document("a.pdf", pdf(TEXT), password="acorn").pages[0].text == TEXT


def test_scanned_pdf_is_named_as_such():
    with pytest.raises(ScannedDocument, match="run OCR"):
        parse_document("scan.pdf", scanned_pdf())


def test_pages_without_any_drawing_hold_no_text():
    with pytest.raises(ScannedDocument, match="no text"):
        parse_document("blank.pdf", pdf_of_streams([stream(b"")]))


@pytest.mark.parametrize("data", [b"", b"\x00" * 4096, b"%PDF-1.7\n", b"not a pdf at all"])
def test_empty_and_hollow_pdf_is_damaged(data):
    with pytest.raises(DamagedDocument) as caught:
        parse_document("hollow.pdf", data)
    assert "\n" not in str(caught.value)


def test_pdf_cut_anywhere_is_refused_as_truncated():
    whole = pdf(TEXT, OAK, TEXT * 3)
    for length in [*range(9, len(whole) - 1, len(whole) // 12), len(whole) - 7, len(whole) - 2]:
        with pytest.raises(DamagedDocument, match="truncated"):
            parse_document("cut.pdf", whole[:length])


def test_pdf_cut_within_its_second_revision_is_refused():
    whole = revised(pdf(TEXT), OAK)
    first = len(pdf(TEXT))
    assert parse_document("a.pdf", whole).pages[0].text == TEXT
    for length in (first + 12, first + 30, len(whole) - 40, len(whole) - 8):
        with pytest.raises(DamagedDocument, match="truncated"):
            parse_document("cut.pdf", whole[:length])


@pytest.mark.parametrize("junk", [b"\x00" * 5000, b"\r\n\r\n", b"<!-- served by a proxy -->" * 60])
def test_junk_after_the_end_is_tolerated(junk):
    assert parse_document("a.pdf", pdf(TEXT) + junk).pages[0].text == TEXT


@pytest.mark.parametrize("moved", [b"\n\n\n" + pdf(TEXT), pdf(TEXT).replace(b"startxref\n", b"startxref\n1")])
def test_wrong_offsets_are_repaired(moved):
    """Junk before the header shifts every offset; the objects are all there."""
    assert parse_document("a.pdf", moved).pages[0].text == TEXT


def test_a_page_that_cannot_be_read_is_reported_and_the_others_are_kept():
    broken = stream(b"this is not zlib data", b"/Filter/NoSuchFilter")
    document = parse_document("a.pdf", pdf_of_streams([stream(content(TEXT)), broken]))
    assert [page.text for page in document.pages] == [TEXT, ""]
    assert len(document.warnings) == 1 and "page 2" in document.warnings[0]


def test_decompression_bomb_is_refused_quickly():
    bomb = zlib.compress(b"q Q " * 20_000_000)
    started = time.monotonic()
    with pytest.raises(DocumentTooLarge, match="safety limit"):
        parse_document("bomb.pdf", pdf_of_streams([stream(bomb, b"/Filter/FlateDecode")]))
    assert time.monotonic() - started < 10


def test_looped_page_tree_is_refused():
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Count 2/Kids[3 0 R]>>",
        3: b"<</Type/Pages/Count 2/Parent 2 0 R/Kids[2 0 R]>>",
    }
    with pytest.raises(DocumentError) as caught:
        parse_document("loop.pdf", assemble(objects))
    assert isinstance(caught.value, DamagedDocument | DocumentTooLarge)


def test_one_page_referenced_twenty_thousand_times_is_refused():
    kids = b"4 0 R " * 20_000
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Count 20000/Kids[%s]>>" % kids,
        3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        4: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<</Font<</F1 3 0 R>>>>/Contents 5 0 R>>",
        5: stream(content(TEXT)),
    }
    started = time.monotonic()
    with pytest.raises(DocumentTooLarge):
        parse_document("repeated.pdf", assemble(objects))
    assert time.monotonic() - started < 10


def test_wall_clock_limit_ends_the_reader():
    busy = stream(b"BT /F1 1 Tf " + b"(a) Tj " * 300_000 + b"ET")
    started = time.monotonic()
    with pytest.raises(DocumentTooLarge, match=r"longer than 0\.5 s"):
        parse_document("slow.pdf", pdf_of_streams([busy]), limits=ParseLimits(max_seconds=0.5))
    assert time.monotonic() - started < 5


def test_memory_limit_holds():
    limits = ParseLimits(max_memory=160 << 20)
    with pytest.raises(DocumentError):
        parse_document("fat.pdf", pdf(TEXT) + b"\x00" * (120 << 20), limits=limits)


def test_size_and_character_limits():
    with pytest.raises(DocumentTooLarge, match="bytes"):
        parse_document("big.pdf", pdf(TEXT), limits=ParseLimits(max_bytes=100))
    with pytest.raises(DocumentTooLarge, match="characters"):
        parse_document("long.pdf", pdf(TEXT, OAK), limits=ParseLimits(max_characters=80))


def test_ligatures_soft_hyphens_and_odd_spaces_are_normalised():
    text = "A soft hy\xadphen, a\xa0hard space and   three blanks."
    document = parse_document("a.pdf", pdf(text))
    assert document.pages[0].text == "A soft hyphen, a hard space and three blanks."


def test_words_set_apart_by_gaps_alone_do_not_run_together():
    """TeX writes `[<word>-250<word>]TJ` in a composite font without a space glyph."""
    cmap = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        b"1 begincodespacerange <0000> <FFFF> endcodespacerange\n"
        b"2 beginbfchar <0041> <0061> <0020> <003D> endbfchar\nendcmap end end"
    )
    font = (
        b"<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H"
        b"/DescendantFonts[11 0 R]/ToUnicode 12 0 R>>"
    )
    descendant = (
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)"
        b"/Supplement 0>>/DW 1000/W[32[900] 65[500]]>>"
    )
    shown = stream(b"BT /F2 10 Tf 60 700 Td [<00410041>-250<0041>20<0041>-250<00410041>]TJ ET")
    data = pdf_of_streams([shown] * 1, b"/Font<</F2 10 0 R>>", o10=font, o11=descendant, o12=stream(cmap))
    assert parse_document("tex.pdf", data).pages[0].text == "aa aa aa"


def test_justified_lines_do_not_split_words():
    """Ghostscript widens spaces by `Tw` and places the next piece of the same word by `Td`."""
    glyphs, spaces = 118.4, 5 * 3.0
    shown = b"BT /F1 10 Tf 60 700 Td 3 Tw (is a sequence of optional v) Tj %.1f 0 Td (ariables) Tj ET"
    data = pdf_of_streams([stream(shown % (glyphs + spaces))])
    assert parse_document("gs.pdf", data).pages[0].text == "is a sequence of optional variables"


@pytest.mark.parametrize("path", REAL.values(), ids=REAL)
def test_real_pdf_cut_at_any_of_many_lengths_is_refused(path):
    whole = path.read_bytes()
    assert len(parse_document(path.name, whole).pages) == 5
    end = len(whole)
    for length in [*range(1, 3000, 13), *range(3000, end - 80, 61), *range(end - 80, end - 1)]:
        with pytest.raises(Unreadable) as caught:
            refuse_truncated(whole[:length])
        assert caught.value.kind == "DamagedDocument"
    for length in (700, len(whole) // 2, len(whole) - 20):
        with pytest.raises(DamagedDocument, match="truncated"):
            parse_document("cut.pdf", whole[:length])
