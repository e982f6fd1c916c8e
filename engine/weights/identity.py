"""A cheap name for a checkpoint's content, to key caches by."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from engine.errors import BadCheckpoint

_SAMPLE = 64 << 10
_SAMPLES = 64


def content_identity(weights: Iterable[Path], settings: Iterable[Path] = ()) -> str:
    """32 hex digits over what the files hold, not over their names or places.

    SHA-256 of: each weight file's size, its first and last 64 KiB and 62 blocks of 64 KiB evenly
    between (files up to 4 MiB whole); and each settings file that exists, whole. About 10 ms. A
    retrained or requantised model differs. It is no seal: a single changed byte between the
    samples goes unseen; the registry's full checksum is for that.
    """
    digest = hashlib.sha256()
    try:
        for path in weights:
            _sample(digest, path)
        for path in settings:
            if path.is_file():
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise BadCheckpoint(f"cannot be read: {error}") from error
    return digest.hexdigest()[:32]


def _sample(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= _SAMPLES * _SAMPLE:
            digest.update(file.read())
            return
        for i in range(_SAMPLES):
            file.seek((size - _SAMPLE) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
