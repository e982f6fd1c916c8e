"""The settings sentence-transformers keeps beside an encoder: pooling, prompts and the longest text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.encoder_config import Pooling
from engine.models.fields import Fields
from engine.protocols import Role
from engine.weights.files import inside, read_json, read_object, read_object_if_there

_MODES: dict[str, Pooling] = {
    **{"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"},
    **{"mean": "mean", "cls": "cls", "last": "last"},
}


_LONGEST = 1 << 24
"""transformers writes 10^30 where a tokenizer has no limit."""
_DOCUMENT_NAMES = ("document", "passage", "corpus")


@dataclass(frozen=True)
class Prompts:
    """What to put before a text, by the names of config_sentence_transformers.json.

    >>> Prompts({"query": "query: ", "passage": "passage: "}).of("document")
    'passage: '
    """

    by_name: Mapping[str, str] = field(default_factory=dict)
    default: str = ""

    def of(self, role: Role | None) -> str:
        """The prompt for a role; the default one where it has none of its own."""
        names = {None: (), "query": ("query",), "document": _DOCUMENT_NAMES}[role]
        return next((self.by_name[name] for name in names if name in self.by_name), self.default)


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
    longest = fields.integer("max_seq_length", low=3) if "max_seq_length" in fields else _tokenizers(folder)
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


def sentence_prompts(folder: Path) -> Prompts:
    """Reads config_sentence_transformers.json; without it there are none."""
    source = folder / "config_sentence_transformers.json"
    fields = Fields(read_object_if_there(source), str(source))
    listed = fields.table("prompts").values
    if not all(isinstance(prompt, str) for prompt in listed.values()):
        raise fields.bad("prompts", "must be texts by name")
    default = fields.values.get("default_prompt_name")
    if default is not None and default not in listed:
        raise fields.bad("default_prompt_name", f"must be one of {', '.join(listed) or 'no prompts'}")
    return Prompts(dict(listed), listed[default] if default is not None else "")


def _tokenizers(folder: Path) -> int | None:
    """The tokenizer's own limit, where it has one."""
    limit = read_object_if_there(folder / "tokenizer_config.json").get("model_max_length")
    return limit if isinstance(limit, int) and 3 <= limit <= _LONGEST else None


def _modules(path: Path) -> list[dict[str, Any]]:
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BadCheckpoint(f"{path}: must hold a list of objects")
    return modules


def _pooling(path: Path) -> Pooling:
    """The one mode that is switched on, by `pooling_mode_*: true` or by `pooling_mode: "mean"`."""
    config = read_object(path)
    if config.get("include_prompt") is False:
        raise UnsupportedModel(f"{path}: include_prompt false, pooling without the prompt, is not supported")
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key in config if key.startswith(prefix) and config[key] is True]
    if isinstance(config.get("pooling_mode"), str):
        modes = [config["pooling_mode"]]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise UnsupportedModel(
            f"{path}: pooling {'+'.join(modes)[:60]!r} is not supported; mean, cls and lasttoken are"
        )
    return _MODES[modes[0]]
