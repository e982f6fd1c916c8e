"""A quantised model as a folder of its own: packed weights, and the settings of what it was made from."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.errors import InvalidRequest, UnsupportedModel
from engine.registry import PACKED
from engine.weights.checkpoint import ONNX, Checkpoint
from engine.weights.gguf_settings import SETTINGS, write_settings
from engine.weights.gguf_split import read_gguf_parts
from engine.weights.packed import write_packed
from engine.weights.safetensors import INDEX

_PATTERNS = ("*.json", "*.jinja", "artifact.metadata", "[0-9]*_*/config.json")
_NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "*TERMS*")
"""What a model's licence may ask to go with every copy."""


def save_packed(checkpoint: Checkpoint, folder: Path) -> Path:
    """Writes a folder that `load_checkpoint` maps as it is, and returns it; it is there whole or not at all.

    Raises InvalidRequest where something has that name already, UnsupportedModel for what could not be read
    again (image models of timm or out of ONNX files), OSError where it cannot be written.
    """
    if checkpoint.architecture == "timm" or checkpoint.path.suffix == ONNX:
        raise UnsupportedModel(f"{checkpoint.path}: models in Hugging Face's layout or GGUF can be packed")
    folder = folder.expanduser()
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".partial-{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        write_packed(made / PACKED, checkpoint.params, checkpoint.quant)
        _write_settings(checkpoint.path, made)
        made.rename(folder)
    return folder


def check_free(folder: Path) -> None:
    """Raises InvalidRequest where something has that name already."""
    if folder.is_symlink() or folder.exists():
        raise InvalidRequest(f"{folder} exists; name a folder that does not", param="out")


def _write_settings(origin: Path, folder: Path) -> None:
    beside = origin.parent if origin.is_file() else origin
    patterns = _NOTICES if origin.is_file() else (*_PATTERNS, *_NOTICES)
    if origin.is_file():
        write_settings(read_gguf_parts(origin), folder / SETTINGS)
    for path in _matching(beside, patterns):
        target = folder / path.relative_to(beside)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_file() and path.name != INDEX)
