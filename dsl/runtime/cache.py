"""Compiled kernels on disk, shared by processes and safe against crashes.

An entry is a folder of files named by its key, put in place by one rename. `digests.json` lists a SHA-256
for each file, so that what a crash or a full disk left behind is noticed, removed and made again. Only
folders of the user's own that nobody else may write to are trusted, since entries hold machine code.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

LIMIT = 256 * 2**20
"""Bytes kept; the entries used longest ago go first."""
_DIGESTS = "digests.json"
_ABANDONED = 3600.0
_log = logging.getLogger("tarsia.dsl")


def default_folder() -> Path:
    """`TARSIA_DSL_CACHE`, or a folder in the user's cache directory."""
    given = os.environ.get("TARSIA_DSL_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tarsia" / "dsl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tarsia" / "dsl"


def key_of(*parts: str) -> str:
    """A key for everything that the entry depends on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


@functools.cache
def opened(folder: Path) -> "Cache | None":
    """The cache in a folder; None, said once, where it cannot be made or trusted."""
    try:
        return Cache(folder)
    except OSError as error:
        _log.warning("compiled kernels are not kept: %s", error)
        return None


class Cache:
    """A folder of entries. Threads and processes may share it.

    Raises OSError from the constructor when the folder cannot be made or is not safe to run code from.

    Example:
        >>> cache = Cache(default_folder())
        >>> folder = cache.load(key) or cache.store(key, {"kernel.so": code})
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{folder} belongs to or may be written by others; chmod 700 it")

    def load(self, key: str) -> Path | None:
        """The folder of an entry whose files are all as they were stored, or None."""
        entry = self.folder / key
        if not entry.is_dir():
            return None
        # Looked at twice: the first look may have fallen between the two renames of `replace`.
        if not _intact(entry) and not _intact(entry):
            shutil.rmtree(entry, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(entry)
        return entry

    def store(self, key: str, files: Mapping[str, bytes]) -> Path:
        """Puts an entry in place, unless another process has done so meanwhile; returns its folder.

        Raises OSError when the disk is full or may not be written to; nothing is left behind then.
        """
        entry = self.folder / key
        made = self._written(files)
        try:
            made.rename(entry)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            if self.load(key) is None:
                raise
        self._trim(keep=entry)
        return entry

    def keep(self, key: str, files: Mapping[str, bytes]) -> None:
        """`store` for what can be made again: a failure is a warning in the log."""
        try:
            self.store(key, files)
        except OSError as error:
            _log.warning("a compiled kernel is not kept: %s", error)

    def replace(self, key: str, files: Mapping[str, bytes]) -> None:
        """Puts an entry in the place of another; of two at once, either wins whole. Raises OSError."""
        entry = self.folder / key
        made = self._written(files)
        old = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            with contextlib.suppress(FileNotFoundError):
                entry.rename(old / key)
            with contextlib.suppress(OSError):  # another process was first, with an entry as good
                made.rename(entry)
        finally:
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(made, ignore_errors=True)

    def _written(self, files: Mapping[str, bytes]) -> Path:
        """A hidden folder with the files and their digests; removed again when one cannot be written."""
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            for name, data in files.items():
                (made / name).write_bytes(data)
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            (made / _DIGESTS).write_text(json.dumps(digests))
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return made

    def _trim(self, keep: Path) -> None:
        for path in self.folder.glob(".new-*"):
            if _age(path) > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        entries = sorted((p for p in self.folder.iterdir() if not p.name.startswith(".")), key=_age)
        total = 0
        for entry in entries:
            total += sum(_size(file) for file in entry.glob("*"))
            if total > self.limit and entry != keep:
                shutil.rmtree(entry, ignore_errors=True)


def _intact(entry: Path) -> bool:
    try:
        digests = json.loads((entry / _DIGESTS).read_text())
        return bool(digests) and all(
            hashlib.sha256((entry / name).read_bytes()).hexdigest() == digest
            for name, digest in digests.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
