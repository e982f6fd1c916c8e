"""Copies of a collection's folder as it is at one moment: hard links of what never changes, and the rest.

Segments and their files of the dead are immutable, so a link is a copy that costs nothing and outlives the
original's removal. The manifest and the log are small and copied.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from stores.log import manifest as manifests
from stores.log.disk import Disk, write_new

FOLDER = "snapshots"
_NOT_HERE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES, errno.ENOSYS}
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Snapshot:
    """`bytes` on disk, most of them shared with the collection while it has not merged those segments."""

    collection: str
    name: str
    path: Path
    rows: int
    bytes: int
    created: float


def clone(source: Path, target: Path, disk: Disk) -> None:
    """A collection's folder as `target`: complete and durable, or after an error or a crash not there.

    Nobody may write to `source` meanwhile. What a crash leaves is `.<name>.new` beside it.
    """
    unfinished = target.with_name(f".{target.name}.new")
    disk.remove_tree(unfinished)
    disk.make_folder(unfinished)
    manifest = manifests.read(source)
    for name in ("CURRENT", f"MANIFEST-{manifest.number:06d}"):
        _copy(source / name, unfinished / name, disk)
    disk.make_folder(unfinished / "wal")
    for path in sorted((source / "wal").iterdir()):
        _copy(path, unfinished / "wal" / path.name, disk)
    disk.make_folder(unfinished / "seg")
    for entry in manifest.segments:
        disk.make_folder(unfinished / "seg" / entry.name)
        for path in sorted((source / "seg" / entry.name).iterdir()):
            _link(path, unfinished / "seg" / entry.name / path.name, disk)
        disk.sync_folder(unfinished / "seg" / entry.name)
    for folder in (unfinished / "wal", unfinished / "seg", unfinished):
        disk.sync_folder(folder)
    disk.rename(unfinished, target)
    disk.sync_folder(target.parent)


def _link(source: Path, target: Path, disk: Disk) -> None:
    try:
        disk.link(source, target)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        _copy(source, target, disk)


def _copy(source: Path, target: Path, disk: Disk) -> None:
    with source.open("rb") as file:
        write_new(disk, target, iter(lambda: file.read(_CHUNK), b""))


def describe(path: Path) -> Snapshot:
    """What a snapshot's folder holds. CorruptStore if its manifest is damaged."""
    manifest = manifests.read(path)
    rows = sum(entry.rows for entry in manifest.segments)
    size = sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
    return Snapshot(path.parent.name, path.name, path, rows, size, path.stat().st_mtime)
