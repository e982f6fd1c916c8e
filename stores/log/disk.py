"""The file system as the store uses it: every change to a file or folder goes through one `Disk`.

Small enough to be replaced: tests inject a full disk, a failing sync, a torn write or a crash at any
single step by overriding these methods. Reading needs no door of its own.
"""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stores.errors import StoreError, StoreFull

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Buffer = bytes | bytearray | memoryview
_MOST_PARTS = 1024
"""Of one call, as POSIX systems take them (IOV_MAX)."""


class Disk:
    """The real one. All errors are OSError. Files are created 0600, folders 0700."""

    def create(self, path: Path) -> int:
        """A descriptor of a new, empty file, open for appending. An older file there is an error."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open_append(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, fd: int, *parts: Buffer) -> None:
        """Appends all of `parts`; on an error an unknown part of them may have been written."""
        rest = [memoryview(part).cast("B") for part in parts if len(part)]
        while rest:
            written = os.writev(fd, rest[:_MOST_PARTS])
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]

    def truncate(self, fd: int, size: int) -> None:
        """Cuts the file, or extends it with zeros that take no space."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Returns when the file's bytes and length are on the medium."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there stops at the drive's cache
        else:
            os.fdatasync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def sync_folder(self, path: Path) -> None:
        """Makes creations, renames and removals in the folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; replaces a file at `target`."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """A second name for a file; OSError where the file system has none, or it is another one."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Best effort: what cannot be removed now is garbage that the next open removes."""
        shutil.rmtree(path, ignore_errors=True)


def write_new(disk: Disk, path: Path, chunks: Iterable[Buffer], *, size: int | None = None) -> None:
    """A new file with these bytes, synced; `size` extends it with zeros. The folder is not synced."""
    fd = disk.create(path)
    try:
        for chunk in chunks:
            disk.write(fd, chunk)
        if size is not None:
            disk.truncate(fd, size)
        disk.sync(fd)
    finally:
        disk.close(fd)


def replace(disk: Disk, path: Path, data: Buffer) -> None:
    """`path` holds either its old bytes or all of `data`, whatever happens. Durable on return."""
    temporary = path.with_name(path.name + ".tmp")
    disk.unlink(temporary)
    write_new(disk, temporary, [data])
    disk.rename(temporary, path)
    disk.sync_folder(path.parent)


def files_under(folder: Path) -> Iterator[Path]:
    """All files in a folder and below; a folder that is removed meanwhile has none."""
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names)


def file_facts(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """Of the files that are still there: others may be removed while this looks."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path.stat()


@contextmanager
def explaining(task: str) -> Iterator[None]:
    """Turns an OSError into a StoreError, or StoreFull, that says what could not be done."""
    try:
        yield
    except OSError as error:
        kind = StoreFull if error.errno in NO_SPACE else StoreError
        raise kind(f"{task}: {error.strerror or error}") from error
