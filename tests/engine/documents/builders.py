"""Small PDFs written byte by byte, so that each test says exactly what is in its file."""

import io
import zlib

from pypdf import PdfReader, PdfWriter

HELVETICA = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def assemble(objects: dict[int, bytes], *, trailer: bytes = b"") -> bytes:
    """A PDF of numbered objects, object 1 being the catalogue, with a correct cross-reference table."""
    out = bytearray(b"%PDF-1.7\n")
    offsets = {}
    for number, body in objects.items():
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % offsets.get(number, 0)
    out += b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(out)


def stream(data: bytes, extra: bytes = b"") -> bytes:
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(data), extra, data)


def content(text: str) -> bytes:
    """Drawing operators that show each line of `text` (Latin-1) below the one before."""
    lines = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in text.split("\n")]
    shown = "\n".join(f"({line}) Tj T*" for line in lines)
    return f"BT /F1 11 Tf 14 TL 60 760 Td\n{shown}\nET".encode("latin-1")


def pdf(*pages: str) -> bytes:
    return pdf_of_streams([stream(content(text)) for text in pages])


def pdf_of_streams(streams: list[bytes], resources: bytes = b"/Font<</F1 3 0 R>>", **extra: bytes) -> bytes:
    """One page per content stream; `extra` names further objects `o10=...` by their number."""
    objects = {1: b"<</Type/Catalog/Pages 2 0 R>>", 3: HELVETICA}
    objects |= {int(name[1:]): body for name, body in extra.items()}
    kids = []
    for index, body in enumerate(streams):
        page, contents = 100 + 2 * index, 101 + 2 * index
        kids.append(b"%d 0 R" % page)
        objects[contents] = body
        objects[page] = (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<<%s>>/Contents %d 0 R>>"
            % (resources, contents)
        )
    objects[2] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(kids))
    return assemble(objects)


def scanned_pdf(pages: int = 2) -> bytes:
    """Pages that are one grey picture each."""
    picture = stream(
        zlib.compress(b"\x80" * 64 * 64),
        b"/Type/XObject/Subtype/Image/Width 64/Height 64/ColorSpace/DeviceGray"
        b"/BitsPerComponent 8/Filter/FlateDecode",
    )
    draw = stream(b"q 600 0 0 780 0 0 cm /Im1 Do Q")
    return pdf_of_streams([draw] * pages, b"/XObject<</Im1 10 0 R>>", o10=picture)


def locked(data: bytes, *, user: str, owner: str = "owner", algorithm: str = "AES-256") -> bytes:
    """`data` encrypted with pypdf; `user=""` opens without being asked."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(user, owner, algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def revised(data: bytes, text: str) -> bytes:
    """`data` with an incremental update after its end: one more object and a second trailer."""
    start = len(data)
    added = b"90 0 obj\n%s\nendobj\n" % stream(text.encode())
    table = b"xref\n90 1\n%010d 00000 n \n" % start
    previous = data.rsplit(b"startxref\n", 1)[1].split(b"\n", 1)[0]
    trailer = b"trailer\n<</Size 200/Root 1 0 R/Prev %s>>\nstartxref\n%d\n%%%%EOF\n"
    return data + added + table + trailer % (previous, start + len(added))
