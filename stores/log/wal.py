"""The write-ahead log: numbered files of records, appended to the last one.

    wal/NNNNNNNNNN.log      named by the index of its first record
    file = magic 8 bytes | format version u32 | first index u64 | crc32 u32 | records

Appending returns when the records are durable. A failed sync poisons the log: what the kernel then
believes about those pages cannot be trusted, so nothing more is acknowledged until it is reopened.
On opening, an unfinished write at the very end is cut; any other damage refuses. Not thread-safe:
`log.commit` puts a queue before it. It knows nothing of what the payloads mean.
"""

import logging
import mmap
import struct
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from stores.errors import CorruptStore, LogFailed, StoreClosed, StoreFull
from stores.log.checksum import crc32
from stores.log.disk import NO_SPACE, Buffer, Disk, file_facts
from stores.log.records import FORMAT_VERSION, Record, decode, find_after, head, version_at

_logger = logging.getLogger(__name__)
_MAGIC = b"TARSIALG"
_FILE_HEADER = struct.Struct("<8sIQI")
FILE_HEADER_SIZE = _FILE_HEADER.size
ROTATE_BYTES = 64 << 20


def _file_header(first_index: int) -> bytes:
    body = _FILE_HEADER.pack(_MAGIC, FORMAT_VERSION, first_index, 0)[:-4]
    return body + struct.pack("<I", crc32(body))


def _file_name(first_index: int) -> str:
    return f"{first_index:010d}.log"


def log_files(folder: Path) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(folder.glob("*.log"), key=lambda path: int(path.stem))


@dataclass(frozen=True)
class Scan:
    """What reading one file told: its last index (first - 1 if empty) and where the good bytes end."""

    last_index: int
    end: int
    size: int


class FileReader:
    """Checks one log file front to back. Iterate for its records, then read `.scan`."""

    def __init__(self, path: Path, *, is_last: bool) -> None:
        self.path, self._is_last = path, is_last
        self.first_index = int(path.stem)
        self.scan = Scan(self.first_index - 1, 0, path.stat().st_size)

    def __iter__(self) -> Iterator[Record]:
        if self.scan.size < FILE_HEADER_SIZE:
            # The header is synced before the file is used: a short one was never written to.
            if not self._is_last:
                raise CorruptStore(self.path, "the file is cut short", offset=0)
            return
        with self.path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        yield from self._records(memoryview(pages))

    def _records(self, data: memoryview) -> Iterator[Record]:
        if bytes(data[:FILE_HEADER_SIZE]) != _file_header(self.first_index):
            raise CorruptStore(self.path, "not a log file of this version, or a damaged header", offset=0)
        last, offset = self.first_index - 1, FILE_HEADER_SIZE
        while offset < len(data) and (found := decode(data, offset)):
            record, end = found
            if version_at(data, offset) != FORMAT_VERSION:
                raise CorruptStore(self.path, "a record of a newer format; use a newer tarsia", offset=offset)
            if record.index != last + 1:
                raise CorruptStore(self.path, f"record {record.index} follows record {last}", offset=offset)
            yield record
            last, offset = record.index, end
        if offset < len(data):
            self._require_unfinished(data, offset, last)
        self.scan = Scan(last, offset, len(data))

    def _require_unfinished(self, data: memoryview, offset: int, last: int) -> None:
        """CorruptStore unless the bytes from `offset` can be a write that was never acknowledged."""
        if not self._is_last:
            raise CorruptStore(self.path, "a damaged record before the end of the log", offset=offset)
        later = find_after(data, offset, last)
        # Records of one group commit may reach the disk in any order; they say that none of them was synced.
        if later is not None and later.synced > last:
            raise CorruptStore(self.path, f"a damaged record before record {later.index}", offset=offset)


def _read(folder: Path, after: int) -> Generator[Record, None, FileReader]:
    """Records above `after` of all files, checked for damage and gaps; returns the last file's reader."""
    files = log_files(folder)
    if not files or int(files[0].stem) > after + 1:
        raise CorruptStore(folder, f"log files from record {after + 1} are missing")
    last = int(files[0].stem) - 1
    reader = FileReader(files[0], is_last=len(files) == 1)
    for path in files:
        reader = FileReader(path, is_last=path == files[-1])
        if reader.first_index != last + 1:
            raise CorruptStore(path, f"it should start with record {last + 1}")
        for record in reader:
            if record.index > after:
                yield record
        last = reader.scan.last_index
    if last < after:
        raise CorruptStore(reader.path, f"records {last + 1} to {after} are missing")
    return reader


class Log:
    """Append to it after `replay` has been read to its end; `create` makes an empty one."""

    def __init__(self, folder: Path, disk: Disk, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._folder, self._disk, self._rotate_bytes = folder, disk, rotate_bytes
        self._fd: int | None = None
        self._path = folder
        self._file_first = self._size = 0
        self.last_index = 0
        self.failure: str | None = None
        self.cut_bytes = 0
        self.pending_bytes = 0
        """Bytes replayed or appended since the caller last set this to 0."""

    @classmethod
    def create(cls, folder: Path, disk: Disk) -> None:
        """An empty log in a new folder, durable but for the folder's own entry in its parent."""
        disk.make_folder(folder)
        log = cls(folder, disk)
        log._start_file()
        log.close()

    def replay(self, after: int) -> Iterator[Record]:
        """Every record with an index above `after`, in order; then the log is open for appending.

        CorruptStore for damage, a gap, or missing files; an unfinished write at the end is cut.
        """
        reader = yield from _read(self._folder, after)
        self.last_index = reader.scan.last_index
        self._resume(reader)
        self.pending_bytes = self.bytes

    def verify(self, after: int) -> list[Path]:
        """Reads all files again, as `replay` does, and returns them. No append may be under way."""
        for _ in _read(self._folder, after):
            pass
        return log_files(self._folder)

    def _resume(self, reader: FileReader) -> None:
        path, scan = reader.path, reader.scan
        self._path, self._file_first, self._size = path, reader.first_index, scan.end
        if scan.size < FILE_HEADER_SIZE:
            self._disk.unlink(path)
            self._start_file()
            return
        self._fd = self._disk.open_append(path)
        if scan.end < scan.size:
            self.cut_bytes = scan.size - scan.end
            _logger.warning("%s: cut an unfinished write of %d bytes", path, self.cut_bytes)
            self._disk.truncate(self._fd, scan.end)
        # What was read may so far be only in the page cache of a process that died before its sync.
        self._disk.sync(self._fd)

    def append(self, entries: Sequence[tuple[int, Sequence[Buffer]]], *, term: int = 0) -> list[Record]:
        """Writes (type, payload) entries as the next records with one sync; durable on return.

        StoreFull: nothing was written and later writes may succeed. LogFailed: nothing more can be.
        """
        if self._fd is None:
            raise StoreClosed("the database is closed; open it again")
        if self.failure is not None:
            raise LogFailed(self._failure_message())
        first, synced = self.last_index + 1, self.last_index
        records = [
            Record(kind, payload, first + place, term, synced)
            for place, (kind, payload) in enumerate(entries)
        ]
        try:
            if self._size >= self._rotate_bytes:
                self.rotate()
            parts = [part for record in records for part in (head(record), *record.parts)]
            self._disk.write(self._fd, *parts)
        except OSError as error:
            self._undo_write()
            if error.errno in NO_SPACE and self.failure is None:
                raise StoreFull(
                    f"no space left for the log in {self._folder}; free some and try again"
                ) from error
            self.failure = self.failure or str(error)
            raise LogFailed(self._failure_message()) from error
        except BaseException:
            self._undo_write()
            raise
        self._sync()
        size = sum(map(len, parts))
        self._size += size
        self.pending_bytes += size
        self.last_index += len(records)
        return records

    def _sync(self) -> None:
        assert self._fd is not None
        try:
            self._disk.sync(self._fd)
        except BaseException as error:
            self.failure = str(error) or type(error).__name__
            self._undo_write()
            if isinstance(error, OSError):
                raise LogFailed(self._failure_message()) from error
            raise

    def _undo_write(self) -> None:
        """Cuts what was not acknowledged, so that a later reader never sees it."""
        try:
            if self._fd is not None:
                self._disk.truncate(self._fd, self._size)
        except OSError as error:
            self.failure = self.failure or f"could not undo an unfinished write: {error}"

    def _failure_message(self) -> str:
        return f"the log in {self._folder} failed ({self.failure}); check the disk, then reopen the database"

    def poison(self, reason: str) -> None:
        """Refuses all further writes: memory and log no longer agree."""
        self.failure = self.failure or reason

    def rotate(self) -> None:
        """Further records go to a new file. Nothing happens if the current one is empty."""
        if self.last_index >= self._file_first:
            self._start_file()

    def _start_file(self) -> None:
        first = self.last_index + 1
        path = self._folder / _file_name(first)
        self._disk.unlink(path)
        fd = self._disk.create(path)
        try:
            self._disk.write(fd, _file_header(first))
            self._disk.sync(fd)
            self._disk.sync_folder(self._folder)
        except BaseException:
            self._disk.close(fd)
            self._disk.unlink(path)
            raise
        self.close()
        self._fd, self._path, self._file_first, self._size = fd, path, first, FILE_HEADER_SIZE

    def drop_until(self, index: int) -> None:
        """Removes files whose records are all at or below `index`; never the last file."""
        files = log_files(self._folder)
        for path, following in pairwise(files):
            if int(following.stem) <= index + 1:
                self._disk.unlink(path)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(facts.st_size for facts in file_facts(log_files(self._folder)))

    def close(self) -> None:
        if self._fd is not None:
            self._disk.close(self._fd)
            self._fd = None
