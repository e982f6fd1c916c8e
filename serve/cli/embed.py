"""`tarsia embed`: texts to unit vectors."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import Engine
from engine.errors import InvalidRequest
from serve.cli.output import print_json, stages
from serve.config import load_settings


def run(texts: Sequence[str], flags: Mapping[str, Any], config_file: Path | None, *, as_json: bool) -> None:
    """One line of JSON per text, or with `as_json` one document with the model's name."""
    settings = load_settings(flags, config_file=config_file).settings
    lines = list(texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise InvalidRequest('nothing to embed: `tarsia embed "a text"`, or one text per line on stdin')
    with stages() as stage:
        stage(f"load {settings.embedding_model}", 0, 1)
        engine = Engine.load(settings.embedding_model)
        vectors = engine.embed(lines, progress=lambda done, total: stage("embed", done, total))
    if as_json:
        print_json({"model": engine.name, "dim": vectors.shape[1], "embeddings": vectors.tolist()})
        return
    for text, vector in zip(lines, vectors, strict=True):
        print(json.dumps({"text": text, "embedding": vector.tolist()}, ensure_ascii=False))
