"""A tiny random reranker with a real WordPiece tokenizer: the parity fixture and a vocabulary for it."""

import json
import shutil
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
WORDS = [f"w{number}" for number in range(150)]
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
PUNCTUATION = [".", ","]


def tokenizer() -> tokenizers.Tokenizer:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *PUNCTUATION, *WORDS])}
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(SPECIAL)
    return made


def reranker_folder(target: Path, family: str = "bert_reranker", **config: object) -> Path:
    shutil.copytree(PARITY / family, target)
    tokenizer().save(str(target / "tokenizer.json"))
    values = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**values, **config}))
    return target
