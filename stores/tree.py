"""One collection's rows on disk and in memory: log, memtable, segments, and how they become each other.

A write is logged, synced, then applied to the memtable (`GroupCommit`). A full memtable is frozen, and
another takes its place; the frozen one is sealed into a segment; a manifest names it and raises the floor
below which the log is no longer needed. Merging rewrites segments without their dead. Each step is durable
before the next one relies on it, so that a crash anywhere leaves either the state before or the state
after. It knows rows, not queries.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import numpy as np

from stores.errors import CorruptStore, StoreClosed, StoreError
from stores.index import kernels
from stores.index.graph.arrange import Arrangement, arrange
from stores.index.graph.build import DEGREE, Progress
from stores.index.graph.index import node_bytes
from stores.log import manifest as manifests
from stores.log.commit import GroupCommit
from stores.log.disk import Buffer, Disk, explaining, file_facts, files_under
from stores.log.manifest import Manifest
from stores.log.records import DELETE, UPSERT, UPSERT_SPARSE, Record
from stores.log.snapshot import clone
from stores.log.wal import Log
from stores.maintenance import Cancelled, Pace, Workers
from stores.options import Options
from stores.query.recall import Shadow
from stores.query.search import Tuning
from stores.schema import Schema
from stores.segment.batch import Batch, decode_deletion
from stores.segment.merge import Joined, merged_postings
from stores.segment.planner import Load, plan_merge
from stores.segment.segment import Segment
from stores.segment.shelf import Shelf
from stores.segment.state import State
from stores.segment.view import View

_logger = logging.getLogger(__name__)
# Many may wait for the thread that merges: taken together they get one graph, and writers are let go on.
_MOST_SEGMENTS = 128
_FEWEST_NODES = 8
_TOO_LARGE = 1e15
_SLAB = 16_384


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

    def __init__(self, folder: Path, disk: Disk, options: Options, workers: Workers) -> None:
        self.folder, self._disk, self._options, self._workers = folder, disk, options, workers
        self._shelf = Shelf(folder, disk)
        self.schema: Schema = self._shelf.schema
        self.state = State(self.schema.width, options.seal_rows)
        # Taken in this order, and before the commit's `exclusive`.
        self._merging, self._sealing = RLock(), RLock()
        self._frozen_floor = 0
        self._graphless: set[str] = set()
        self._patience = 1
        self._closed = self._impatient = False
        self._last_read = 0.0
        self.maintenance_error: str | None = None
        self.tuning = Tuning(options.memory_bytes, Shadow(options.shadow_every, workers.merging.ask))
        if any(segment.has_graph for segment in self._shelf.load(self.state)):
            workers.merging.ask(kernels.warm)
        self.log = Log(folder / "wal", disk, rotate_bytes=options.rotate_bytes)
        self._commit = GroupCommit(self.log, self._apply)
        try:
            self._replay()
            self._shelf.remove_garbage()
            self.log.drop_until(self._shelf.floor)
        except BaseException:
            self.log.close()
            raise

    def _replay(self) -> None:
        for record in self.log.replay(self._shelf.floor):
            try:
                self._apply(record)
            except ValueError as error:
                raise CorruptStore(self.folder / "wal", f"record {record.index}: {error}") from error

    def _apply(self, record: Record, batch: Batch | None = None) -> int:
        if record.type in (UPSERT, UPSERT_SPARSE):
            return self.state.upsert(batch or Batch.of_record(record.type, record.payload))
        if record.type == DELETE:
            return self.state.delete(decode_deletion(record.payload))
        raise ValueError(f"unknown record type {record.type}; use a newer tarsia")

    @property
    def view(self) -> View:
        """All rows, as they are at this moment. StoreClosed."""
        self._require_open()
        self._last_read = time.monotonic()
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

    def write(self, kind: int, payload: Sequence[Buffer], batch: Batch | None = None) -> int:
        """Logs and applies one record: durable and visible on return, with the number of rows changed.

        `batch` is what the payload of an upsert says, if it is at hand.
        May do maintenance after that; its failure is not the write's, see `maintenance_error`.
        """
        self._require_open()
        changed = self._commit.submit(kind, payload, batch)
        self._maintain()
        return changed

    @contextmanager
    def without_writers(self) -> Iterator[None]:
        """Nothing is written while this is held but by this thread."""
        with self._undisturbed(), self._sealing, self._commit.exclusive:
            yield

    def write_alone(self, kind: int, make: Callable[[], Sequence[Buffer] | None]) -> int:
        """As `write`, of a payload that is made from the rows as they are, with no write in between."""
        self._require_open()
        changed = self._commit.submit_alone(kind, make)
        self._maintain()
        return changed

    def _maintain(self) -> None:
        if not self._due():
            return
        with self._putting_off():
            background = self._options.background
            with self._sealing:
                if self._due():
                    # One that is frozen still: writing is faster than the disk takes segments, so it waits.
                    self._seal_frozen()
                    self._freeze()
                if not background:
                    self._seal_frozen()
            if background:
                self._workers.sealing.ask(self._seal_quietly)
            if not background or len(self.state.segments) >= _MOST_SEGMENTS:
                # Merging has no thread, or has fallen behind writing: then writers wait for it.
                with self._merging:
                    self._merge_as_planned(lambda share: None)

    def _seal_quietly(self) -> None:
        """What the sealing worker does; then there may be enough segments to merge."""
        with self._putting_off(), self._sealing:
            if not self._closed:
                self._seal_frozen()
        self._workers.merging.ask(self._merge_quietly)

    def _merge_quietly(self) -> None:
        """What the merging worker does."""
        pace = Pace(lambda: self._closed or self._impatient, lambda: self._last_read)
        with self._putting_off(), self._merging:
            if not self._closed:
                self._merge_as_planned(pace)

    @contextmanager
    def _putting_off(self) -> Iterator[None]:
        """A maintenance step, whose failure is remembered and tried again a memtable later."""
        try:
            yield
            self._patience, self.maintenance_error = 1, None
        except (Cancelled, StoreClosed):
            pass
        except (OSError, StoreError) as error:
            # The rows are safe in the log or in the segments there are.
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
        """Turns all that is in memory into segments and lets go of the log before it. OSError: it is still
        in the log and searchable, and the next call tries again."""
        with self._sealing:
            self._seal_frozen()
            self._freeze()
            self._seal_frozen()

    def _freeze(self) -> None:
        """Later writes go to another memtable and another log file. Hold `_sealing`; none may be frozen."""
        with self._commit.exclusive:
            self._require_open()
            floor = self.log.last_index
            if floor == self._shelf.floor:
                return
            self.log.rotate()
            self.state.freeze()
            self._frozen_floor, self.log.pending_bytes = floor, 0

    def _seal_frozen(self) -> None:
        """Builds beside the writers, then swaps with them held off, as `_merge` does. Hold `_sealing`."""
        if self.state.frozen is None:
            return
        rows, alive = self.state.frozen
        kept = np.flatnonzero(alive)
        segment = self._build(Joined([(rows, kept)], self.schema.width))
        with self._commit.exclusive:
            self._require_open()
            segments = self.state.segments
            if segment is not None:
                segments.append((segment, self.state.frozen[1][kept]))
            self._shelf.commit(segments, self._frozen_floor)
            self.state.seal(segment, kept)
            self._clean()

    def snapshot(self, target: Path) -> None:
        """A copy of everything that has been written, at `target`; writers wait for the making of it."""
        with self._sealing, self._commit.exclusive, explaining(f"{self.folder.name}: no snapshot was made"):
            self.seal()
            clone(self.folder, target, self._disk)

    def compact(self, progress: Progress) -> None:
        """Seals, then merges all segments into one without their dead; their disk space is returned."""
        with self._alone("compacted"):
            loads = self._loads()
            if len(loads) > 1 or any(load.live < load.rows for load in loads) or self._lacks_graph():
                self._merge([load.name for load in loads], progress)

    def reindex(self, progress: Progress) -> None:
        """Seals, then merges the segments that have no graph; those that have one stay as they are."""
        with self._alone("reindexed"):
            names = self._unindexed()
            if len(names) > 1 or self._lacks_graph():
                self._merge(names, progress)

    @contextmanager
    def _alone(self, done: str) -> Iterator[None]:
        """All rows in segments, and no merge in progress: a background one is stopped."""
        with self._undisturbed(), explaining(f"{self.folder.name}: the collection could not be {done}"):
            self.seal()
            yield

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """No merge but this thread's; one in the background is stopped."""
        self._impatient = True
        try:
            with self._merging:
                self._impatient = False
                yield
        finally:
            self._impatient = False

    def _unindexed(self) -> list[str]:
        return [segment.entry.name for segment, _ in self.state.segments if not segment.has_graph]

    def _lacks_graph(self) -> bool:
        if self.schema.metric == "hamming":
            return False
        names = self._unindexed()
        return self._live_rows(names) >= self._options.graph_rows

    def _live_rows(self, names: Sequence[str]) -> int:
        return sum(load.live for load in self._loads() if load.name in names)

    def _merge_as_planned(self, progress: Progress) -> None:
        while names := plan_merge(self._loads()) or self._worth_a_graph():
            self._merge(names, progress)

    def _worth_a_graph(self) -> list[str]:
        """The first segment that is large enough for a graph and has none, unless none could be made."""
        if self.schema.metric == "hamming":
            return []
        lacking = set(self._unindexed()) - self._graphless
        large = [load.name for load in self._loads() if load.live >= self._options.graph_rows]
        return [name for name in large if name in lacking][:1]

    def _loads(self) -> list[Load]:
        return [
            Load(segment.entry.name, segment.count, int(np.count_nonzero(alive)))
            for segment, alive in self.state.segments
        ]

    def _merge(self, names: Sequence[str], progress: Progress) -> None:
        """Builds beside the writers, then swaps with them held off. Rows that died meanwhile are marked."""
        inputs = [(segment, alive) for segment, alive in self.state.segments if segment.entry.name in names]
        self._graphless -= set(names)
        old = [segment for segment, _ in inputs]
        kept = [np.flatnonzero(alive) for _, alive in inputs]
        sources = list(zip(old, kept, strict=True))
        joined = Joined(sources, self.schema.width)
        arrangement = self._arranged(joined)
        segment = self._build(joined, arrangement, progress)
        if segment is not None and arrangement is None:
            self._graphless.add(segment.entry.name)
        if segment is not None and (postings := merged_postings(sources, arrangement)):
            segment.adopt_postings(postings)
        order = np.arange(len(joined)) if arrangement is None else arrangement.order
        with self._commit.exclusive:
            self._require_open()
            segments = [pair for pair in self.state.segments if pair[0] not in old]
            if segment is not None:
                segments.append((segment, self.state.alive_now(old, kept)[order]))
            self._shelf.commit(segments)
            self.state.merge(old, kept, segment, order)
            self._clean(replaced=names)

    def _arranged(self, joined: Joined) -> Arrangement | None:
        """The order for a segment with a graph; None for one that is better scanned."""
        if len(joined) < self._options.graph_rows or self.schema.metric == "hamming":
            return None
        if self.schema.metric != "cosine" and not _codable(joined):
            return None
        arrangement = arrange(joined, self.schema.metric)
        return arrangement if arrangement.nodes >= _FEWEST_NODES else None

    def _too_little_memory(self, arrangement: Arrangement) -> bool:
        """Whether not even the neighbours of all rows fit into what the index may take."""
        limit = self._options.memory_bytes
        each = node_bytes(arrangement.frame.width, DEGREE, "bits")
        return limit is not None and self.state.live_count * each > limit

    def _build(
        self, joined: Joined, arrangement: Arrangement | None = None, progress: Progress = lambda share: None
    ) -> Segment | None:
        """`Shelf.build`; None for no rows."""
        if not len(joined):
            return None
        blocks = arrangement is not None and self._too_little_memory(arrangement)
        serial = self.state.next_serial()
        return self._shelf.build(joined, serial, arrangement, blocks=blocks, progress=progress)

    def _clean(self, replaced: Sequence[str] = ()) -> None:
        """Removes what the newest manifest no longer needs."""
        self._shelf.clean(self.state.segments, replaced)
        try:
            self.log.drop_until(self._shelf.floor)
        except OSError as error:
            _logger.warning("%s: old log files remain: %s", self.folder, error)

    def verify(self) -> list[Path]:
        """Reads and checks every file; returns them. CorruptStore names the first damaged one."""
        with self._commit.exclusive:
            self._require_open()
            return self._shelf.verify() + self.log.verify(self._shelf.floor)

    @property
    def disk_bytes(self) -> int:
        """Space that the collection's files take up."""
        return sum(facts.st_blocks * 512 for facts in file_facts(files_under(self.folder)))

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"{self.folder.name}: the database is closed; open it again")

    def close(self) -> None:
        """Waits for the write or merge in progress. What is in the log stays there for the next opening."""
        self._closed = True
        with self._merging, self._sealing, self._commit.exclusive:
            self.log.close()


def _codable(joined: Joined) -> bool:
    """Whether float32 holds the squared lengths of all rows, which codes and graphs are made from."""
    slabs = (joined[start : start + _SLAB] for start in range(0, len(joined), _SLAB))
    return all(float(np.abs(slab).max()) < _TOO_LARGE for slab in slabs)
