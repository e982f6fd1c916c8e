"""Disks that fail: at a chosen step they crash, tear a write, run full or refuse a sync.

None of them really syncs, so hundreds of runs take seconds; `LosingDisk` remembers what was not synced
and takes it away at the crash, as a power cut would.
"""

import errno
import os
import random
import shutil
from pathlib import Path

from stores.log.disk import Buffer, Disk


class Crash(BaseException):
    """The process is dead from here on: not an Exception, so that no code can handle it."""


class FaultyDisk(Disk):
    """Counts steps; step `fail_at` (from 1) fails by `fault`. `only` limits counting to one kind of step,
    or to "changes": all but syncs, which a crash that loses nothing cannot tell apart.

    Faults: "crash" before the step; "torn" half of a write, then crash; an errno: OSError instead of it,
    after half of it for a write. After a crash every step crashes.
    """

    def __init__(
        self, fail_at: int | None = None, fault: str | int = "crash", only: str | None = None
    ) -> None:
        self.fail_at, self.fault, self.only = fail_at, fault, only
        self.steps = 0
        self.dead = False

    def _step(self, kind: str) -> bool:
        """Whether this step is the one to fail."""
        if self.dead:
            raise Crash
        counts = not kind.startswith("sync") if self.only == "changes" else self.only in (None, kind)
        if not counts:
            return False
        self.steps += 1
        return self.steps == self.fail_at

    def _fail(self) -> None:
        if isinstance(self.fault, int):
            raise OSError(self.fault, os.strerror(self.fault))
        self.dead = True
        raise Crash

    def _before(self, kind: str) -> None:
        if self._step(kind):
            self._fail()

    def create(self, path: Path) -> int:
        self._before("create")
        return super().create(path)

    def open_append(self, path: Path) -> int:
        self._before("open")
        return super().open_append(path)

    def write(self, fd: int, *parts: Buffer) -> None:
        if self._step("write"):
            if self.fault != "crash":
                whole = b"".join(parts)
                super().write(fd, whole[: len(whole) // 2])
            self._fail()
        super().write(fd, *parts)

    def truncate(self, fd: int, size: int) -> None:
        self._before("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._before("sync")

    def sync_folder(self, path: Path) -> None:
        self._before("sync_folder")

    def make_folder(self, path: Path) -> None:
        self._before("make_folder")
        super().make_folder(path)

    def link(self, source: Path, target: Path) -> None:
        self._before("link")
        super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        self._before("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._before("unlink")
        super().unlink(path)

    def remove_tree(self, path: Path) -> None:
        self._before("remove_tree")
        super().remove_tree(path)


class LosingDisk(FaultyDisk):
    """After a crash, `lose` undoes what was not synced: ends of files, and names in folders.

    Of the changes of names that were not synced, the latest are undone, as many as `seed` says; of a
    file's unsynced bytes, as many remain as it says.
    """

    def __init__(
        self, grave: Path, seed: int, fail_at: int | None = None, fault: str | int = "crash"
    ) -> None:
        super().__init__(fail_at, fault)
        self._random = random.Random(seed)
        self._grave, self._kept = grave, 0
        self._synced: dict[int, int] = {}
        self._names: list[tuple[Path, str, Path, Path | None]] = []
        grave.mkdir(exist_ok=True)

    def _keep(self, path: Path) -> Path | None:
        """A second name for what is at `path`, under which it outlives its removal."""
        if not path.is_file():
            return None
        self._kept += 1
        kept = self._grave / str(self._kept)
        os.link(path, kept)
        return kept

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._synced[os.fstat(fd).st_ino] = 0
        self._names.append((path.parent, "create", path, None))
        return fd

    def sync(self, fd: int) -> None:
        super().sync(fd)
        facts = os.fstat(fd)
        self._synced[facts.st_ino] = facts.st_size

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._names = [change for change in self._names if change[0] != path]

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._names.append((path.parent, "create", path, None))

    def rename(self, source: Path, target: Path) -> None:
        if not self.dead:
            replaced = self._keep(target)
        super().rename(source, target)
        self._names = [
            (target if folder == source else folder, change, _moved(path, source, target), kept)
            for folder, change, path, kept in self._names
        ]
        self._names.append((source.parent, f"rename {source.name}", target, replaced))

    def unlink(self, path: Path) -> None:
        if not self.dead:
            kept = self._keep(path)
        super().unlink(path)
        if kept:
            self._names.append((path.parent, "unlink", path, kept))

    def lose(self, folder: Path) -> None:
        """What a power cut leaves of `folder`."""
        for path in folder.rglob("*"):
            facts = path.stat()
            synced = self._synced.get(facts.st_ino, facts.st_size)
            if path.is_file() and synced < facts.st_size:
                os.truncate(path, self._random.randint(synced, facts.st_size))
        undone = self._random.randint(0, len(self._names))
        for _, change, path, kept in reversed(self._names[len(self._names) - undone :]):
            if change.startswith("rename "):
                path.rename(path.with_name(change.removeprefix("rename ")))
            elif change == "create" and path.is_dir():
                shutil.rmtree(path)
            elif change == "create":
                path.unlink(missing_ok=True)
            if kept:
                os.link(kept, path)


def _moved(path: Path, source: Path, target: Path) -> Path:
    """Where `path` is after `source`, a folder above it, was renamed. A file itself is renamed back."""
    return target / path.relative_to(source) if source in path.parents else path


NO_SPACE = errno.ENOSPC
IO_ERROR = errno.EIO
