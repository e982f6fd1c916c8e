"""The files that a command line names: folders opened, each file with the name its citations will show."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DocumentError, DocumentTooLarge, UnsupportedDocument

SUFFIXES = frozenset({".pdf", ".html", ".htm", ".xhtml", ".txt", ".text", ".md", ".markdown", ".rst"})
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
)


@dataclass(frozen=True)
class NamedFile:
    """`name` is the file's own name, or its path where two files share that."""

    name: str
    path: Path

    def read(self, max_bytes: int) -> bytes:
        """The file's bytes. Raises DocumentError, and DocumentTooLarge before anything is read."""
        try:
            if self.path.stat().st_size > max_bytes:
                raise DocumentTooLarge(
                    self.name, f"larger than {max_bytes / 2**20:.0f} MB (max_upload_bytes)"
                )
            return self.path.read_bytes()
        except OSError as error:
            raise DocumentError(self.name, f"cannot be read: {error.strerror or error}") from error


def named_files(paths: Sequence[Path]) -> list[NamedFile]:
    """Files as they are; of folders, every document in them and below.

    Raises:
        DocumentError: a path that does not exist, or a folder with no document in it.
    """
    return _named(paths, SUFFIXES, "PDF, HTML, Markdown or text file")


def named_images(paths: Sequence[Path]) -> list[NamedFile]:
    """As `named_files`, of images. Raises FileError."""
    return _named(paths, IMAGE_SUFFIXES, "JPEG, PNG, WebP, GIF, BMP or TIFF file")


def _named(paths: Sequence[Path], suffixes: Collection[str], what: str) -> list[NamedFile]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
            if not inside:
                raise UnsupportedDocument(str(path), f"no {what} is in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise UnsupportedDocument(str(path), "neither a file nor a folder")
        else:
            raise DocumentError(str(path), "no such file")
    unique = list({path.resolve(): path for path in found}.values())
    count = Counter(path.name for path in unique)
    return [NamedFile(path.name if count[path.name] == 1 else str(path), path) for path in unique]
