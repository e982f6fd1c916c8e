"""Small files of a checkpoint folder, read as things from outside: bounded and checked."""

import json
from pathlib import Path
from typing import Any

from engine.errors import BadCheckpoint

_LARGEST = 64 << 20


def read_text(path: Path) -> str:
    """The UTF-8 text of a file of at most 64 MiB, or BadCheckpoint."""
    try:
        if path.stat().st_size > _LARGEST:
            raise BadCheckpoint(f"{path}: larger than {_LARGEST >> 20} MiB, which no configuration is")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or BadCheckpoint."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path}: must hold a JSON object")
    return value


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: is not JSON ({error})") from error


def read_object_if_there(path: Path) -> dict[str, Any]:
    """As `read_object`, but an absent file gives an empty object."""
    return read_object(path) if path.is_file() else {}


def inside(folder: Path, name: object) -> Path:
    """`folder / name` for a name that came from the checkpoint: a plain relative path that stays inside."""
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise BadCheckpoint(f"{folder}: {str(name)[:80]!r} is not a file inside the checkpoint's folder")
    return folder / name
