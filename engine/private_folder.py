"""Folders for what only we may have written: compiled programs above all, which are run as they are."""

import functools
import logging
import os
import stat
from pathlib import Path

_log = logging.getLogger(__name__)


def private_folder(path: Path) -> Path | None:
    """The folder, made if need be, with mode 0700; None, and a line in the log, where it is not ours alone.

    It must be a folder and no link, belong to this process's user, and never have been open for others to
    write to. Whoever is that user, or root, can write to it: against them nothing here protects.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True, mode=0o700)
        state = path.lstat()
        reason = _distrusted(state)
        if reason is None:
            path.chmod(0o700)
            return path
    except OSError as error:
        reason = str(error)
    _say_once(f"{path} is not used as a cache: {reason}; or name another folder in TARSIA_CACHE_DIR")
    return None


def _distrusted(state: os.stat_result) -> str | None:
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        return "it is a link or belongs to another user"
    if state.st_mode & 0o022:
        return "others may have written to it; delete it"
    return None


@functools.cache
def _say_once(line: str) -> None:
    _log.warning("%s", line)
