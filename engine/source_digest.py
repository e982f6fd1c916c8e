"""A digest of our own source, so that what is kept on disk never outlives the code that made it."""

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_SUFFIXES = (".py", ".h", ".cc")


@functools.cache
def source_digest(*folders: str) -> str:
    """64 hex digits over names and bytes of the source files under folders like "engine/weights"; 10 ms."""
    digest = hashlib.sha256()
    for folder in folders:
        files = (path for path in (_ROOT / folder).rglob("*") if path.suffix in _SUFFIXES)
        for path in sorted(files):
            text = path.read_bytes()
            digest.update(f"{path.relative_to(_ROOT)}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()
