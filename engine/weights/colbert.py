"""What a ColBERT checkpoint says of itself in `artifact.metadata`, as Stanford's code writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models.fields import Fields
from engine.weights.files import read_object_if_there


@dataclass(frozen=True)
class ColbertSettings:
    """How queries and documents become tokens.

    Attributes:
        query_length: every query has this many tokens, filled up with [MASK], which score too.
        document_length: most tokens of a document.
        query_marker, document_marker: the token after [CLS] that says which of the two it is.
        attend_to_masks: other tokens of a query see its [MASK] tokens.
        skip_punctuation: tokens of punctuation in documents do not score.
    """

    query_length: int = 32
    document_length: int = 220
    query_marker: str = "[unused0]"
    document_marker: str = "[unused1]"
    attend_to_masks: bool = False
    skip_punctuation: bool = True


def is_colbert(config: Mapping[str, Any]) -> bool:
    """By the architecture that config.json names."""
    return config.get("architectures") == ["HF_ColBERT"]


def colbert_settings(folder: Path) -> ColbertSettings:
    """Reads artifact.metadata; what it leaves out is as in ColBERTv2. Raises BadCheckpoint."""
    source = folder / "artifact.metadata"
    fields, usual = Fields(read_object_if_there(source), str(source)), ColbertSettings()
    return ColbertSettings(
        query_length=fields.integer("query_maxlen", usual.query_length, low=4, high=1 << 16),
        document_length=fields.integer("doc_maxlen", usual.document_length, low=4, high=1 << 16),
        query_marker=fields.text("query_token_id", usual.query_marker),
        document_marker=fields.text("doc_token_id", usual.document_marker),
        attend_to_masks=fields.flag("attend_to_mask_tokens", usual.attend_to_masks),
        skip_punctuation=fields.flag("mask_punctuation", usual.skip_punctuation),
    )
