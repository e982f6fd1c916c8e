"""A database: a folder of collections that one process has open for writing.

<path>/LOCK  collections/<name>/           CURRENT  MANIFEST-n  wal/  seg/
            snapshots/<name>/<snapshot>/  the same, of one moment
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from stores.collection import Collection, CollectionStats
from stores.errors import CollectionNotFound, InvalidQuery, ModelMismatch, StoreClosed, StoreLocked
from stores.log.disk import Disk, explaining
from stores.log.snapshot import FOLDER, Snapshot, clone, describe
from stores.maintenance import Workers
from stores.options import Options
from stores.reembed import SUFFIX, Embed, Reembedding
from stores.schema import Metric, Schema, check_name
from stores.tree import Tree, create_tree


class Database:
    """Open with `Database.open`; close it, or use it in a `with` statement. Thread-safe.

    >>> with Database.open("~/papers") as db:
    ...     docs = db.collection("docs", dim=384, metric="cosine", model="all-minilm-l6-v2")
    """

    def __init__(self, path: Path, lock_fd: int, disk: Disk, options: Options) -> None:
        self.path, self._lock_fd, self._disk, self._options = path, lock_fd, disk, options
        self._folder = path / "collections"
        self._open: dict[str, tuple[Collection, Tree]] = {}
        self._workers = Workers()
        self._mutex = Lock()
        self._closed = False

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, options: Options | None = None, disk: Disk | None = None
    ) -> Self:
        """Opens the folder, or makes it (mode 0700). StoreLocked if it is open already, by anyone."""
        disk = disk or Disk()
        root = Path(path).expanduser().absolute()
        with explaining(f"{root} cannot be opened as a database"):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = _lock(root)
            try:
                _prepare(root, disk)
            except BaseException:
                os.close(lock_fd)
                raise
        return cls(root, lock_fd, disk, options or Options())

    def collection(
        self, name: str, *, dim: int | None = None, metric: Metric | None = None, model: str | None = None
    ) -> Collection:
        """Opens a collection, or creates it if `dim` is given; a new one's metric is cosine unless said.

        SchemaMismatch if what is given is not what the collection is, CollectionNotFound if it is not
        there and `dim` is missing, CorruptStore if it is damaged.
        """
        with self._mutex:
            self._require_open()
            if check_name(name) not in self._open:
                self._load(name, dim, metric, model)
            collection = self._open[name][0]
        collection.schema.require(name, dim, metric, model)
        return collection

    def _load(self, name: str, dim: int | None, metric: Metric | None, model: str | None) -> None:
        folder = self._folder / name
        if not folder.exists():
            if dim is None:
                raise CollectionNotFound(f"no collection {name!r} in {self.path}; give dim= to create it")
            schema = Schema(dim, metric or "cosine", model)
            with explaining(f"collection {name!r} cannot be created"):
                create_tree(folder, schema, self._disk)
        with explaining(f"collection {name!r} cannot be opened"):
            tree = Tree(folder, self._disk, self._options, self._workers)
        self._open[name] = (Collection(name, tree), tree)

    def collections(self) -> list[str]:
        """Names of all collections, sorted."""
        self._require_open()
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))

    def stats(self) -> dict[str, CollectionStats]:
        """Of the collections that have been opened, by name."""
        with self._mutex:
            opened = {name: collection for name, (collection, _) in self._open.items()}
        return {name: collection.stats() for name, collection in opened.items()}

    def drop(self, name: str) -> None:
        """Removes a collection and all its files. CollectionNotFound."""
        with self._mutex:
            self._require_open()
            folder = self._folder / check_name(name)
            if not folder.exists():
                raise CollectionNotFound(f"no collection {name!r} in {self.path}")
            if name in self._open:
                self._open.pop(name)[1].close()
            # Renamed first: after a crash it is either all there or garbage.
            doomed = folder.with_name(f".{name}.dropped")
            self._disk.remove_tree(doomed)
            with explaining(f"collection {name!r} cannot be dropped"):
                self._disk.rename(folder, doomed)
                self._disk.sync_folder(self._folder)
            self._disk.remove_tree(doomed)

    def snapshots(self, collection: str | None = None) -> list[Snapshot]:
        """All snapshots, or one collection's, oldest first; also of collections that have been dropped."""
        self._require_open()
        folders = (self.path / FOLDER).glob(f"{collection or '*'}/*")
        found = [describe(path) for path in folders if not path.name.startswith(".")]
        return sorted(found, key=lambda snapshot: (snapshot.collection, snapshot.created))

    def delete_snapshot(self, collection: str, name: str) -> None:
        """CollectionNotFound if there is no such snapshot."""
        self._disk.remove_tree(self._snapshot_folder(collection, name))

    def _snapshot_folder(self, collection: str, name: str) -> Path:
        self._require_open()
        path = self.path / FOLDER / check_name(collection) / check_name(name, "snapshot")
        if not path.is_dir():
            known = ", ".join(snapshot.name for snapshot in self.snapshots(collection)) or "none"
            raise CollectionNotFound(f"no snapshot {name!r} of {collection!r}; there are: {known}")
        return path

    def restore(
        self,
        collection: str,
        snapshot: str | os.PathLike[str],
        *,
        into: str | None = None,
        overwrite: bool = False,
    ) -> Collection:
        """The collection as it was: a snapshot by its name, or the folder of one from elsewhere.

        Every byte is verified first. `into` gives it another name; a collection that is there is replaced
        only with `overwrite`: it is itself until the restored one is complete, whatever happens.
        CollectionNotFound, CorruptStore, InvalidQuery if something is in the way.
        """
        source = self._snapshot_folder(collection, snapshot) if isinstance(snapshot, str) else Path(snapshot)
        name = check_name(into or collection)
        folder = self._folder / name
        with self._mutex, explaining(f"collection {name!r} cannot be restored"):
            self._require_open()
            if folder.exists() and not overwrite:
                raise InvalidQuery(
                    f"there is a collection {name!r}: give into= another name, or overwrite=True"
                )
            restored = self._folder / f".{name}.restored"
            self._disk.remove_tree(restored)
            clone(source, restored, self._disk)
            checked = Tree(restored, self._disk, self._options, self._workers)
            try:
                checked.verify()
            finally:
                checked.close()
            if name in self._open:
                self._open.pop(name)[1].close()
            self._swap_in(restored, name)
        return self.collection(name)

    def reembed(
        self, name: str, embed: Embed, *, model: str, dim: int, metric: Metric | None = None
    ) -> Reembedding:
        """Begins, or goes on with, moving a collection to another model.

        embed: texts -> vectors (n, dim) of `model`.

        >>> moving = db.reembed("docs", new_model.embed, model="e5-small-v2", dim=384)
        >>> moving.run()  # in a thread, as often as you like; searches go on
        >>> docs = moving.finish()
        """
        old = self.collection(name)
        if old.schema.model == model:
            raise ModelMismatch(f"{name!r} holds vectors of {model!r} already")
        beside = f"{name}{SUFFIX}"
        new = self.collection(beside, dim=dim, metric=metric or old.schema.metric, model=model)
        return Reembedding(old, new, embed, lambda last: self._put_in_place(beside, name, last))

    def _put_in_place(self, beside: str, name: str, last: Callable[[], int]) -> Collection:
        """Gives the collection `beside` the name of another, which is dropped, after `last` has been called
        with the other's writers held off. Open ones follow."""
        with self._mutex, explaining(f"collection {name!r} cannot be replaced"):
            self._require_open()
            collection, tree = self._open[name]
            with tree.without_writers():
                last()
                self._open.pop(beside)[1].close()
                restored = self._folder / f".{name}.restored"
                self._disk.remove_tree(restored)
                self._disk.rename(self._folder / beside, restored)
                tree.close()
                del self._open[name]
                self._swap_in(restored, name)
            tree = Tree(self._folder / name, self._disk, self._options, self._workers)
            collection.follow(tree)
            self._open[name] = (collection, tree)
        return collection

    def _swap_in(self, restored: Path, name: str) -> None:
        """Puts `.<name>.restored` where `name` is; a crash leaves either, see `_prepare`."""
        folder, dropped = self._folder / name, self._folder / f".{name}.dropped"
        self._disk.remove_tree(dropped)
        if folder.exists():
            self._disk.rename(folder, dropped)
        self._disk.rename(restored, folder)
        self._disk.sync_folder(self._folder)
        self._disk.remove_tree(dropped)

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"the database {self.path} is closed; open it again")

    def close(self) -> None:
        """Waits for writes in progress and lets the folder go. A second call does nothing."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            for _, tree in self._open.values():
                tree.close()
            self._workers.close()
            os.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _prepare(root: Path, disk: Disk) -> None:
    """Makes what a new database has; removes collections that were half made or half dropped."""
    collections = root / "collections"
    if not collections.is_dir():
        disk.make_folder(collections)
        disk.sync_folder(root)
        disk.sync_folder(root.parent)
    for restored in collections.glob(".*.restored"):
        name = restored.name.removeprefix(".").removesuffix(".restored")
        if (collections / f".{name}.dropped").exists() and not (collections / name).exists():
            # A crash came between the two renames of `restore`.
            disk.rename(restored, collections / name)
            disk.sync_folder(collections)
    for leftover in (*collections.glob(".*"), *(root / FOLDER).glob("*/.*")):
        disk.remove_tree(leftover)


def _lock(root: Path) -> int:
    """A descriptor whose flock makes this the only writer; the file says who it is."""
    fd = os.open(root / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StoreLocked(
            f"{root} is in use by process {holder}; close it there or use another folder"
        ) from error
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd
