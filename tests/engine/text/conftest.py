"""Tokenizers and reference data shared by the text tests."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from engine.text.tokenizer import Tokenizer, tokenizer_from_gguf

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    return json.loads((FIXTURES / "smollm2_reference.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def smollm2_fields(smollm2_path: Path) -> dict[str, Any]:
    file = next(smollm2_path.glob("*.gguf")) if smollm2_path.is_dir() else smollm2_path
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_fields: dict[str, Any]) -> Tokenizer:
    return tokenizer_from_gguf(smollm2_fields)
