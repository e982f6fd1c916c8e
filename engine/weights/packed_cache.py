"""Quantised weights of models that are loaded again and again, kept packed in the cache folder.

Quantising SmolLM2 135M takes 1.1 s at every start; mapping what that gave takes 0.1 s.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import BadCheckpoint
from engine.source_digest import source_digest
from engine.weights.packed import read_packed, write_packed
from engine.weights.policy import Policy

LIMIT = 16 << 30
"""Bytes of all models together; what was loaded longest ago goes first."""
LEAST_ELEMENTS = 1 << 22
"""Smaller models are quantised in milliseconds."""
_ABANDONED = 3600.0
"""Seconds after which a file that nobody finished was left by a process that was killed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedCache:
    """A folder of packed files, one for each model and policy. Several processes may share it.

    Nothing in it is needed: a damaged file is made again, and a full disk only costs the time saved.
    """

    folder: Path
    limit: int = LIMIT

    def params(
        self,
        files: Sequence[Path],
        identity: str,
        policy: Policy,
        shapes: Mapping[str, tuple[int, ...]],
        build: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """What `build()` gives, from the folder where it is known.

        Args:
            files: the checkpoint's weights; their sizes and times of change are part of the name,
                since `identity` (`content_identity`) has not read every byte of them.
        """
        small = sum(math.prod(shape) for shape in shapes.values()) < LEAST_ELEMENTS
        if small or policy.quant not in ("int8", "int4"):
            return build()
        entry = self.folder / f"{_name(files, identity, policy)}.safetensors"
        if entry.is_file():
            try:
                found = read_packed(entry).params(shapes)
                entry.touch()
                return found
            except (BadCheckpoint, OSError) as error:
                _log.warning("quantising again, since a kept copy cannot be used: %s", error)
        made = build()
        try:
            write_packed(entry, made, policy.quant)
            self._shrink(entry)
        except OSError as error:
            entry.unlink(missing_ok=True)
            _log.warning("quantised weights are not kept for the next start: %s", error)
        return made

    def _shrink(self, newest: Path) -> None:
        """Deletes the entries loaded longest ago until the rest fits; a mapped one lives on till unmapped."""
        for partial in self.folder.glob(".partial-*"):
            if partial.stat().st_mtime < newest.stat().st_mtime - _ABANDONED:
                partial.unlink(missing_ok=True)
        states = {path: path.stat() for path in self.folder.glob("*.safetensors")}
        total = sum(state.st_size for state in states.values())
        for path in sorted(states, key=lambda path: (path == newest, states[path].st_mtime)):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= states[path].st_size


def _name(files: Sequence[Path], identity: str, policy: Policy) -> str:
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    code = source_digest("engine/weights", "engine/ops", "engine/models")
    return hashlib.sha256(repr((identity, states, policy, code)).encode()).hexdigest()[:40]
