"""The manifest: which files make up a collection. Whatever it does not name is garbage.

    CURRENT -> MANIFEST-n          each: crc32 in hex, a space, JSON, a newline

A new manifest is written beside the old one and becomes true at the rename of CURRENT. Numbers are
never used twice, so an interrupted attempt cannot be taken for a later one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores.errors import CorruptStore
from stores.log.checksum import crc32
from stores.log.disk import Disk, replace
from stores.schema import Schema

_FORMAT = 1
_CURRENT = "CURRENT"


@dataclass(frozen=True)
class SegmentEntry:
    """A segment's folder, rows, footer checksum, and the version of its tombstones (0: none dead)."""

    name: str
    rows: int
    footer_crc: int
    tombs: int = 0


@dataclass(frozen=True)
class Manifest:
    """`floor` is the last record index whose effect is in the segments: replay starts after it."""

    schema: Schema
    floor: int = 0
    segments: tuple[SegmentEntry, ...] = ()
    number: int = 1


def seal(body: Any) -> bytes:
    """One line of JSON with its checksum before it."""
    text = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (crc32(text), text)


def unseal(path: Path) -> Any:
    """What `seal` wrote to the file. CorruptStore if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptStore(path, "the file is missing") from error
    text = data[9:-1]
    if data != b"%08x %s\n" % (crc32(text), text):
        raise CorruptStore(path, "its checksum does not match")
    return json.loads(text)


def _name(number: int) -> str:
    return f"MANIFEST-{number:06d}"


def write(folder: Path, manifest: Manifest, disk: Disk) -> None:
    """Makes `manifest` the collection's state, durably. Older ones are left for `remove_old`."""
    body = {
        "format": _FORMAT,
        "schema": manifest.schema.to_json(),
        "floor": manifest.floor,
        "segments": [vars(entry) for entry in manifest.segments],
    }
    replace(disk, folder / _name(manifest.number), seal(body))
    replace(disk, folder / _CURRENT, seal({"manifest": manifest.number}))


def read(folder: Path) -> Manifest:
    """The collection's state. CorruptStore names the file that is damaged, missing or too new."""
    number = int(unseal(folder / _CURRENT)["manifest"])
    path = folder / _name(number)
    body = unseal(path)
    if body["format"] != _FORMAT:
        raise CorruptStore(path, f"format {body['format']} is newer than {_FORMAT}; use a newer tarsia")
    segments = tuple(SegmentEntry(**entry) for entry in body["segments"])
    return Manifest(Schema.from_json(body["schema"]), body["floor"], segments, number)


def remove_old(folder: Path, number: int, disk: Disk) -> None:
    """Removes manifests other than `number`, and unfinished ones."""
    for path in folder.glob("MANIFEST-*"):
        if path.name != _name(number):
            disk.unlink(path)
    disk.unlink(folder / f"{_CURRENT}.tmp")


def highest_number(folder: Path) -> int:
    """The largest number that any manifest file here carries, finished or not."""
    numbers = [int(path.stem.removeprefix("MANIFEST-")) for path in folder.glob("MANIFEST-*")]
    return max(numbers, default=0)
