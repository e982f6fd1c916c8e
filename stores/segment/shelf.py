"""A collection's segments on disk, and the manifest that says which of them count.

A segment is built beside the others, then named by a manifest, then the files it replaces are removed: a
crash in between leaves files that no manifest names, which the next opening removes.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stores.errors import CorruptStore
from stores.index.graph.arrange import Arrangement
from stores.index.graph.build import Progress
from stores.log import manifest as manifests
from stores.log.disk import Disk
from stores.log.manifest import Manifest, SegmentEntry
from stores.segment.build import write_segment
from stores.segment.columns import Bools
from stores.segment.merge import Joined, content_of
from stores.segment.segment import Segment
from stores.segment.state import State
from stores.segment.tombs import read_alive, tomb_path, write_tombs

_logger = logging.getLogger(__name__)
Living = tuple[Segment, Bools]
"""A segment and which of its rows live."""


class Shelf:
    """Not thread-safe, but for `build`: whoever changes it holds the writers off."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder, self._disk = folder, disk
        self._segments_folder = folder / "seg"
        self._manifest = manifests.read(folder)
        self._next_number = manifests.highest_number(folder) + 1
        self._saved: dict[int, Bools] = {}
        self.schema = self._manifest.schema

    @property
    def floor(self) -> int:
        """The last record of the log that the segments hold."""
        return self._manifest.floor

    def load(self, state: State) -> list[Segment]:
        """Opens all segments into an empty state. CorruptStore."""
        loaded = []
        for entry in self._manifest.segments:
            folder = self._segments_folder / entry.name
            segment = Segment(folder, entry, state.next_serial(), self.schema.width)
            loaded.append((segment, read_alive(folder, entry.tombs, entry.rows)))
        try:
            state.load(loaded)
        except ValueError as error:
            raise CorruptStore(self._folder, str(error)) from error
        self._saved = {segment.serial: alive for segment, alive in loaded}
        return [segment for segment, _ in loaded]

    def remove_garbage(self) -> None:
        """What an interrupted seal, merge or cleaning left behind."""
        current = {entry.name: entry.tombs for entry in self._manifest.segments}
        for folder in self._segments_folder.iterdir():
            if folder.name not in current:
                self._disk.remove_tree(folder)
                continue
            for path in folder.glob("tomb-*"):
                if path != tomb_path(folder, current[folder.name]):
                    self._disk.unlink(path)
        manifests.remove_old(self._folder, self._manifest.number, self._disk)

    def build(
        self,
        joined: Joined,
        serial: int,
        arrangement: Arrangement | None = None,
        *,
        blocks: bool = False,
        progress: Progress = lambda share: None,
    ) -> Segment:
        """A durable segment of the rows that no manifest names yet."""
        content = content_of(self.schema.width, joined, arrangement, blocks=blocks)
        entry = write_segment(self._segments_folder, content, self._disk, progress)
        return Segment(self._segments_folder / entry.name, entry, serial, self.schema.width)

    def commit(self, segments: Sequence[Living], floor: int | None = None) -> None:
        """Makes these the collection's segments, durably, their dead written where they have changed."""
        known = {entry.name: entry for entry in self._manifest.segments}
        entries = []
        for segment, alive in segments:
            if self._saved.get(segment.serial) is alive:
                entries.append(known[segment.entry.name])
            else:
                entries.append(self._save_tombs(segment, alive))
        # The number is spent even if this fails: a half-made attempt must not pass for the next one.
        number, self._next_number = self._next_number, self._next_number + 1
        new_floor = self.floor if floor is None else floor
        changed = Manifest(self.schema, new_floor, tuple(entries), number)
        manifests.write(self._folder, changed, self._disk)
        self._manifest = changed

    def _save_tombs(self, segment: Segment, alive: Bools) -> SegmentEntry:
        if alive.all():
            return replace(segment.entry, tombs=0)
        write_tombs(segment.folder, self._next_number, alive, self._disk)
        return replace(segment.entry, tombs=self._next_number)

    def clean(self, segments: Sequence[Living], replaced: Sequence[str]) -> None:
        """Removes what the last `commit` of these segments has replaced, `replaced` segments among it.
        Whatever fails here is garbage for the next opening."""
        self._saved = {segment.serial: alive for segment, alive in segments}
        try:
            for name in replaced:
                self._disk.remove_tree(self._segments_folder / name)
            for entry in self._manifest.segments:
                folder = self._segments_folder / entry.name
                for path in folder.glob("tomb-*"):
                    if path != tomb_path(folder, entry.tombs):
                        self._disk.unlink(path)
            manifests.remove_old(self._folder, self._manifest.number, self._disk)
        except OSError as error:
            _logger.warning("%s: some replaced files remain: %s", self._folder, error)

    def verify(self) -> list[Path]:
        """Reads and checks every file; returns them. CorruptStore names the first damaged one."""
        manifest = manifests.read(self._folder)
        checked = [self._folder / "CURRENT", self._folder / f"MANIFEST-{manifest.number:06d}"]
        for entry in manifest.segments:
            folder = self._segments_folder / entry.name
            Segment(folder, entry, 0, self.schema.width).verify()
            read_alive(folder, entry.tombs, entry.rows)
            checked += sorted(path for path in folder.iterdir())
        return checked
