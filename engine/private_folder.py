"""Folders for what only we may have written: compiled programs above all, which are run as they are."""

import functools
import logging
import os
import stat
from pathlib import Path

_log = logging.getLogger(__name__)


def private_folder(path: Path) -> Path | None:
    """The folder, made if need be, with mode 0700; None, and a line in the log, where it is not ours alone.

    It must be a folder and no link, and belong to this process's user. Whoever is that user, or root,
    can write to it: against them nothing here protects.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True, mode=0o700)
        state = path.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid():
            path.chmod(0o700)
            return path
        reason = "it is a link or belongs to another user"
    except OSError as error:
        reason = str(error)
    _say_once(f"{path} is not used as a cache: {reason}; name another folder in TARSIA_CACHE_DIR")
    return None


@functools.cache
def _say_once(line: str) -> None:
    _log.warning("%s", line)
