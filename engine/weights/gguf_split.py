"""Models in several GGUF files, `name-00001-of-00003.gguf`, as llama-gguf-split writes them."""

import re
from pathlib import Path

from engine.errors import BadCheckpoint
from engine.weights.gguf_container import GgufFile, GgufTensor, read_gguf

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def first_part(path: Path) -> Path:
    """The first file of the model that `path` is a part of; `path` itself where it is all of one."""
    found = _PART.fullmatch(path.name)
    return path if found is None else path.with_name(f"{found['stem']}-00001-of-{found['count']}.gguf")


def read_gguf_parts(path: Path) -> GgufFile:
    """The model that the file is or is a part of. The first part's metadata are those of the model.

    Raises BadCheckpoint: a part is missing, out of place or damaged, or a tensor is in two of them.
    """
    whole = read_gguf(_there(first_part(path)))
    count = whole.fields.get("split.count", 0)
    if count in (0, 1):
        return whole
    found = _PART.fullmatch(whole.path.name)
    if found is None or int(found["count"]) != count:
        raise BadCheckpoint(
            f"{whole.path}: is one of {count} parts, so its name must end in -00001-of-{count!s:0>5}.gguf"
        )
    names = [f"{found['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    parts = [whole, *(read_gguf(_there(whole.path.with_name(name))) for name in names[1:])]
    return GgufFile(tuple(part.path for part in parts), whole.fields, _joined(parts, count), whole.encoded)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise BadCheckpoint(f"{path}: is missing; a model in parts needs all of them in one folder")
    return path


def _joined(parts: list[GgufFile], count: int) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for number, part in enumerate(parts):
        if (part.fields.get("split.no"), part.fields.get("split.count")) != (number, count):
            raise BadCheckpoint(f"{part.path}: says it is another part than its name")
        if twice := tensors.keys() & part.tensors.keys():
            raise BadCheckpoint(f"{part.path}: tensor {min(twice)[:80]!r} is in an earlier part too")
        tensors.update(part.tensors)
    expected = parts[0].fields.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise BadCheckpoint(f"{parts[0].path}: the parts hold {len(tensors)} tensors, not {expected}")
    return tensors
