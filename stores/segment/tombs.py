"""The dead rows of a segment, as the manifest's version of them: one bit per row, with a checksum.

A new version is a new file; the manifest says which one counts.
"""

import struct
from pathlib import Path

import numpy as np

from stores.errors import CorruptStore
from stores.log.checksum import crc32
from stores.log.disk import Disk, write_new
from stores.segment.columns import Bools

_HEAD = struct.Struct("<QI")


def tomb_path(folder: Path, version: int) -> Path:
    return folder / f"tomb-{version}"


def write_tombs(folder: Path, version: int, alive: Bools, disk: Disk) -> None:
    """Durable on return. A file of that version left by an interrupted attempt is replaced."""
    bits = np.packbits(~alive).tobytes()
    path = tomb_path(folder, version)
    disk.unlink(path)
    write_new(disk, path, [_HEAD.pack(len(alive), crc32(bits)), bits])
    disk.sync_folder(folder)


def read_alive(folder: Path, version: int, rows: int) -> Bools:
    """Which of the segment's rows live: bool (rows,). Version 0 is no file and none dead."""
    if version == 0:
        return np.ones(rows, np.bool_)
    path = tomb_path(folder, version)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptStore(path, "the file is missing") from error
    bits = data[_HEAD.size :]
    if data[: _HEAD.size] != _HEAD.pack(rows, crc32(bits)) or len(bits) != -(-rows // 8):
        raise CorruptStore(path, "its checksum or length does not match")
    return ~np.unpackbits(np.frombuffer(bits, np.uint8), count=rows).astype(np.bool_)
