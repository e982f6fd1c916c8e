"""One collection's rows on disk and in memory: log, memtable, segments, and how they become each other.

A write is logged, synced, then applied to the memtable (`GroupCommit`). A full memtable is sealed into
a segment; a manifest names it and raises the floor below which the log is no longer needed. Merging
rewrites segments without their dead. Each step is durable before the next one relies on it, so that
a crash anywhere leaves either the state before or the state after. It knows rows, not queries.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np

from stores.errors import CorruptStore, StoreClosed, StoreError
from stores.log import manifest as manifests
from stores.log.commit import GroupCommit
from stores.log.disk import Disk, explaining
from stores.log.manifest import Manifest, SegmentEntry
from stores.log.records import DELETE, UPSERT, Record
from stores.log.wal import ROTATE_BYTES, Log
from stores.schema import Schema
from stores.segment.batch import Batch, decode_deletion
from stores.segment.build import write_segment
from stores.segment.columns import Bools
from stores.segment.merge import Source, content_of, merged_postings
from stores.segment.planner import Load, plan_merge
from stores.segment.segment import Segment
from stores.segment.state import State
from stores.segment.tombs import read_alive, tomb_path, write_tombs
from stores.segment.view import View

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """When the memtable is sealed (its rows, or bytes in the log), and when a log file is full."""

    seal_rows: int = 8192
    seal_bytes: int = 64 << 20
    rotate_bytes: int = ROTATE_BYTES


def create_tree(folder: Path, schema: Schema, disk: Disk) -> None:
    """An empty collection at `folder`: all of it, or after a crash nothing under that name."""
    unfinished = folder.with_name(f".{folder.name}.new")
    disk.remove_tree(unfinished)
    disk.make_folder(unfinished)
    disk.make_folder(unfinished / "seg")
    Log.create(unfinished / "wal", disk)
    manifests.write(unfinished, Manifest(schema), disk)
    disk.rename(unfinished, folder)
    disk.sync_folder(folder.parent)


class Tree:
    """An open collection's storage. Thread-safe. Opening it replays the log: `CorruptStore` if it cannot."""

    def __init__(self, folder: Path, disk: Disk, options: Options) -> None:
        self.folder, self._disk, self._options = folder, disk, options
        self._segments_folder = folder / "seg"
        self._manifest = manifests.read(folder)
        self._next_number = manifests.highest_number(folder) + 1
        self.schema: Schema = self._manifest.schema
        self.state = State(self.schema.dim)
        self._saved: dict[int, Bools] = {}
        self._merging = Lock()
        self._patience = 1
        self._closed = False
        self.maintenance_error: str | None = None
        self._load_segments()
        self.log = Log(folder / "wal", disk, rotate_bytes=options.rotate_bytes)
        self._commit = GroupCommit(self.log, self._apply)
        try:
            self._replay()
            self._remove_garbage()
        except BaseException:
            self.log.close()
            raise

    def _load_segments(self) -> None:
        loaded = []
        for entry in self._manifest.segments:
            folder = self._segments_folder / entry.name
            segment = Segment(folder, entry, self.state.next_serial(), self.schema.dim)
            loaded.append((segment, read_alive(folder, entry.tombs, entry.rows)))
        try:
            self.state.load(loaded)
        except ValueError as error:
            raise CorruptStore(self.folder, str(error)) from error
        self._saved = {segment.serial: alive for segment, alive in loaded}

    def _replay(self) -> None:
        for record in self.log.replay(self._manifest.floor):
            try:
                self._apply(record)
            except ValueError as error:
                raise CorruptStore(self.folder / "wal", f"record {record.index}: {error}") from error

    def _apply(self, record: Record) -> int:
        if record.type == UPSERT:
            return self.state.upsert(Batch.decode(record.payload))
        if record.type == DELETE:
            return self.state.delete(decode_deletion(record.payload))
        raise ValueError(f"unknown record type {record.type}; use a newer tarsia")

    def _remove_garbage(self) -> None:
        """What an interrupted seal, merge or cleaning left behind."""
        current = {entry.name: entry.tombs for entry in self._manifest.segments}
        for folder in self._segments_folder.iterdir():
            if folder.name not in current:
                self._disk.remove_tree(folder)
                continue
            for path in folder.glob("tomb-*"):
                if path != tomb_path(folder, current[folder.name]):
                    self._disk.unlink(path)
        manifests.remove_old(self.folder, self._manifest.number, self._disk)
        self.log.drop_until(self._manifest.floor)

    @property
    def view(self) -> View:
        """All rows, as they are at this moment. StoreClosed."""
        self._require_open()
        return self.state.view

    def locate(self, ids: Sequence[str]) -> tuple[View, list[int | None]]:
        """`State.locate`. StoreClosed."""
        self._require_open()
        return self.state.locate(ids)

    @property
    def commits(self) -> int:
        """Syncs of the log since it was opened; `records` is how many writes they made durable."""
        return self._commit.groups

    @property
    def records(self) -> int:
        return self._commit.entries

    def write(self, kind: int, payload: bytes) -> int:
        """Logs and applies one record: durable and visible on return, with the number of rows changed.

        May do maintenance after that; its failure is not the write's, see `maintenance_error`.
        """
        self._require_open()
        changed = self._commit.submit(kind, payload)
        self._maintain()
        return changed

    def _maintain(self) -> None:
        if not self._due():
            return
        try:
            with self._commit.exclusive:
                if self._due():
                    self.seal()
            if self._merging.acquire(blocking=False):
                try:
                    self._merge_as_planned()
                finally:
                    self._merging.release()
            self._patience, self.maintenance_error = 1, None
        except (OSError, StoreError) as error:
            # The rows are safe in the log; the next attempt is a memtable later.
            self._patience += 1
            self.maintenance_error = str(error)
            _logger.warning("%s: maintenance put off: %s", self.folder, error)

    def _due(self) -> bool:
        table, options = self.state.memtable, self._options
        return (
            len(table.ids) >= options.seal_rows * self._patience
            or self.log.pending_bytes >= options.seal_bytes * self._patience
        )

    def flush(self) -> None:
        """`seal`, with the caller's errors: StoreFull or StoreError if the disk refuses."""
        with explaining(f"{self.folder.name}: recent rows could not be sealed and stay in the log"):
            self.seal()

    def seal(self) -> None:
        """Turns the memtable into a segment and lets go of the log before it. OSError: nothing changed."""
        with self._commit.exclusive:
            self._require_open()
            floor = self.log.last_index
            if floor == self._manifest.floor:
                return
            rows, alive = self.state.unsealed
            kept = np.flatnonzero(alive)
            segment = self._build([(rows, kept)])
            self.log.rotate()
            entries = self._saved_entries()
            if segment is not None:
                entries.append(segment.entry)
            self._write_manifest(replace(self._manifest, floor=floor, segments=tuple(entries)))
            self.state.seal(segment, kept)
            self.log.pending_bytes = 0
            self._after_manifest(dropped=[])

    def compact(self) -> None:
        """Seals, then merges all segments into one without their dead; their disk space is returned."""
        with self._merging, explaining(f"{self.folder.name}: the collection could not be compacted"):
            self.seal()
            loads = self._loads()
            if len(loads) > 1 or any(load.live < load.rows for load in loads):
                self._merge([load.name for load in loads])

    def _merge_as_planned(self) -> None:
        while names := plan_merge(self._loads()):
            self._merge(names)

    def _loads(self) -> list[Load]:
        return [
            Load(segment.entry.name, segment.count, int(np.count_nonzero(alive)))
            for segment, alive in self.state.segments
        ]

    def _merge(self, names: Sequence[str]) -> None:
        """Builds beside the writers, then swaps with them held off. Rows that died meanwhile are marked."""
        inputs = [(segment, alive) for segment, alive in self.state.segments if segment.entry.name in names]
        old = [segment for segment, _ in inputs]
        kept = [np.flatnonzero(alive) for _, alive in inputs]
        sources = list(zip(old, kept, strict=True))
        segment = self._build(sources)
        if segment is not None and (postings := merged_postings(sources)):
            segment.adopt_postings(postings)
        with self._commit.exclusive:
            self._require_open()
            entries = [entry for entry in self._saved_entries() if entry.name not in names]
            if segment is not None:
                entries.append(self._save_tombs(segment, self.state.alive_now(old, kept)))
            self._write_manifest(replace(self._manifest, segments=tuple(entries)))
            self.state.merge(old, kept, segment)
            self._after_manifest(dropped=names)

    def _build(self, sources: Sequence[Source]) -> Segment | None:
        """A durable segment of the chosen rows that no manifest names yet; None for no rows."""
        if not any(len(chosen) for _, chosen in sources):
            return None
        entry = write_segment(self._segments_folder, content_of(self.schema.dim, sources), self._disk)
        folder = self._segments_folder / entry.name
        return Segment(folder, entry, self.state.next_serial(), self.schema.dim)

    def _saved_entries(self) -> list[SegmentEntry]:
        """Manifest entries of today's segments, with their dead written where they have changed."""
        entries = {entry.name: entry for entry in self._manifest.segments}
        saved = []
        for segment, alive in self.state.segments:
            entry = entries[segment.entry.name]
            if self._saved.get(segment.serial) is not alive:
                entry = self._save_tombs(segment, alive)
            saved.append(entry)
        return saved

    def _save_tombs(self, segment: Segment, alive: Bools) -> SegmentEntry:
        if alive.all():
            return replace(segment.entry, tombs=0)
        write_tombs(segment.folder, self._next_number, alive, self._disk)
        return replace(segment.entry, tombs=self._next_number)

    def _write_manifest(self, changed: Manifest) -> None:
        # The number is spent even if this fails: a half-made attempt must not pass for the next one.
        number, self._next_number = self._next_number, self._next_number + 1
        changed = replace(changed, number=number)
        manifests.write(self.folder, changed, self._disk)
        self._manifest = changed

    def _after_manifest(self, dropped: Sequence[str]) -> None:
        """Removes what the new manifest has replaced. Whatever fails here is garbage for the next opening."""
        self._saved = {segment.serial: alive for segment, alive in self.state.segments}
        try:
            for name in dropped:
                self._disk.remove_tree(self._segments_folder / name)
            for entry in self._manifest.segments:
                folder = self._segments_folder / entry.name
                for path in folder.glob("tomb-*"):
                    if path != tomb_path(folder, entry.tombs):
                        self._disk.unlink(path)
            manifests.remove_old(self.folder, self._manifest.number, self._disk)
            self.log.drop_until(self._manifest.floor)
        except OSError as error:
            _logger.warning("%s: some replaced files remain: %s", self.folder, error)

    def verify(self) -> list[Path]:
        """Reads and checks every file; returns them. CorruptStore names the first damaged one."""
        with self._commit.exclusive:
            self._require_open()
            manifest = manifests.read(self.folder)
            checked = [self.folder / "CURRENT", self.folder / f"MANIFEST-{manifest.number:06d}"]
            for entry in manifest.segments:
                folder = self._segments_folder / entry.name
                segment = Segment(folder, entry, 0, self.schema.dim)
                segment.verify()
                read_alive(folder, entry.tombs, entry.rows)
                checked += sorted(path for path in folder.iterdir())
            checked += self.log.verify(manifest.floor)
        return checked

    @property
    def disk_bytes(self) -> int:
        """Space that the collection's files take up."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"{self.folder.name}: the database is closed; open it again")

    def close(self) -> None:
        """Waits for the write or merge in progress. What is in the log stays there for the next opening."""
        with self._merging, self._commit.exclusive:
            self._closed = True
            self.log.close()
