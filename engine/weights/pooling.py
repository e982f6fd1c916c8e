"""The settings sentence-transformers keeps beside an encoder: pooling and the longest text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.encoder_config import Pooling
from engine.models.fields import Fields
from engine.weights.files import inside, read_json, read_object, read_object_if_there

_MODES: dict[str, Pooling] = {
    **{"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"},
    **{"mean": "mean", "cls": "cls", "last": "last"},
}


@dataclass(frozen=True)
class SentenceSettings:
    """`max_seq_length` is None where the folder does not say; special tokens count."""

    pooling: Pooling = "mean"
    max_seq_length: int | None = None


def sentence_settings(folder: Path) -> SentenceSettings:
    """Reads modules.json and what it names; a plain BERT folder gives the defaults.

    Whether or not a Normalize module is listed, embeddings are made unit length.
    """
    source = folder / "sentence_bert_config.json"
    fields = Fields(read_object_if_there(source), str(source))
    longest = fields.integer("max_seq_length", low=3) if "max_seq_length" in fields else None
    if not (folder / "modules.json").is_file():
        return SentenceSettings(max_seq_length=longest)
    pooling: Pooling = "mean"
    for module in _modules(folder / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(inside(folder, module.get("path")) / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise UnsupportedModel(f"{folder / 'modules.json'}: a {kind[:40]!r} module is not supported")
    return SentenceSettings(pooling, longest)


def _modules(path: Path) -> list[dict[str, Any]]:
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BadCheckpoint(f"{path}: must hold a list of objects")
    return modules


def _pooling(path: Path) -> Pooling:
    """The one mode that is switched on, by `pooling_mode_*: true` or by `pooling_mode: "mean"`."""
    config = read_object(path)
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key in config if key.startswith(prefix) and config[key] is True]
    if isinstance(config.get("pooling_mode"), str):
        modes = [config["pooling_mode"]]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise UnsupportedModel(
            f"{path}: pooling {'+'.join(modes)[:60]!r} is not supported; mean, cls and lasttoken are"
        )
    return _MODES[modes[0]]
