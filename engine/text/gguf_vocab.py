"""Builds a `tokenizers.Tokenizer` from the vocabulary inside a GGUF file.

Three kinds exist (`tokenizer.ggml.model`): `gpt2` is byte-level BPE with merges, `llama` is
SentencePiece BPE that merges by score with byte fallback, and `bert` is WordPiece. The splits of
`tokenizer.ggml.pre` follow llama.cpp (`src/llama-vocab.cpp`); a name we do not know is refused,
because a wrong split gives silently wrong token ids.
"""

from collections.abc import Mapping
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from engine.errors import BadCheckpoint, UnsupportedModel

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_WORDS = (
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SMOLLM = (r"\p{N}", _GPT2)
_LLAMA3 = (_WORDS % "{1,3}",)
_QWEN2 = (_WORDS % "",)
SPLITS: Final[dict[str, tuple[str, ...]]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "gpt-2": (_GPT2,),
    "mpt": (_GPT2,),
    "olmo": (_GPT2,),
    "smollm": _SMOLLM,
    "starcoder": _SMOLLM,
    "refact": _SMOLLM,
    "command-r": _SMOLLM,
    "codeshell": _SMOLLM,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "stablelm2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}
"""Regular expressions applied one after the other, by the name in `tokenizer.ggml.pre`."""

_WHOLE_WORDS_FIRST = {"llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe"}
"""A word that is in the vocabulary is one token whatever the merges say."""

_KEY = "tokenizer.ggml."


def build(fields: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of GGUF metadata `fields` (key -> plain Python value).

    Raises UnsupportedModel for a model or pre-tokenizer we do not know, BadCheckpoint for a
    vocabulary that contradicts itself, and whatever `tokenizers` raises for what only it can see.
    """
    kind = fields.get(_KEY + "model")
    builders = {"gpt2": _byte_bpe, "llama": _score_bpe, "bert": _word_piece}
    if not isinstance(kind, str) or kind not in builders:
        raise UnsupportedModel(f"tokenizer model {kind!r} is not supported, only {', '.join(builders)}")
    tokens = _strings(fields, "tokens")
    types = _types(fields, len(tokens))
    tokenizer = builders[kind](fields, tokens, types)
    _add_whole_tokens(tokenizer, tokens, types)
    return tokenizer


def _strings(fields: Mapping[str, Any], name: str) -> list[str]:
    values = fields.get(_KEY + name)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise BadCheckpoint(f"{_KEY}{name} must be a non-empty list of strings")
    return values


def _numbers(fields: Mapping[str, Any], name: str, count: int) -> list[Any] | None:
    values = fields.get(_KEY + name)
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != count:
        raise BadCheckpoint(f"{_KEY}{name} must have one entry for each of the {count} tokens")
    return values


def _types(fields: Mapping[str, Any], count: int) -> list[int]:
    return _numbers(fields, "token_type", count) or [NORMAL] * count


def _vocab(tokens: list[str]) -> dict[str, int]:
    vocab: dict[str, int] = {}
    for index, token in enumerate(tokens):
        vocab.setdefault(token, index)
    return vocab


def _byte_bpe(fields: Mapping[str, Any], tokens: list[str], types: list[int]) -> Tokenizer:
    name = fields.get(_KEY + "pre", "default")
    if not isinstance(name, str) or name not in SPLITS:
        raise UnsupportedModel(f"pre-tokenizer {name!r} is not supported, only {', '.join(sorted(SPLITS))}")
    vocab = _vocab(tokens)
    merges = [_merge(line, vocab) for line in _strings(fields, "merges")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=name in _WHOLE_WORDS_FIRST))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[name]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = _surround(fields, tokens, bos_default=name in _WHOLE_WORDS_FIRST)
    return tokenizer


def _merge(line: str, vocab: dict[str, int]) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if left in vocab and right in vocab and left + right in vocab:
        return left, right
    raise BadCheckpoint(f"merge {line[:80]!r} names a token that is not in the vocabulary")


def _score_bpe(fields: Mapping[str, Any], tokens: list[str], types: list[int]) -> Tokenizer:
    scores = _numbers(fields, "scores", len(tokens))
    if scores is None:
        raise BadCheckpoint(f"{_KEY}scores is missing")
    vocab = _vocab(tokens)
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    merges = _merges_by_score(tokens, types, scores, vocab)
    model = models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    prefix = bool(fields.get(_KEY + "add_space_prefix", True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = _surround(fields, tokens, bos_default=True)
    return tokenizer


def _merges_by_score(
    tokens: list[str], types: list[int], scores: list[float], vocab: dict[str, int]
) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third, best score of the third first (SentencePiece BPE)."""
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, kind, score in zip(tokens, types, scores, strict=True):
        if kind not in (NORMAL, USER_DEFINED):
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                ranked.append((-float(score), vocab[left], vocab[right], left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def _word_piece(fields: Mapping[str, Any], tokens: list[str], types: list[int]) -> Tokenizer:
    """GGUF marks word starts with U+2581 and leaves continuations bare; WordPiece does the opposite."""
    pieces = []
    for token, kind in zip(tokens, types, strict=True):
        whole = kind in (CONTROL, UNKNOWN) or (token.startswith("[") and token.endswith("]"))
        pieces.append(token if whole else token[1:] if token.startswith("▁") else f"##{token}")
    unknown = tokens[_index(fields, "unknown_token_id", len(tokens), default=0)]
    tokenizer = Tokenizer(models.WordPiece(_vocab(pieces), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    start = _index(fields, "cls_token_id", len(tokens), _index(fields, "bos_token_id", len(tokens), 0))
    end = _index(fields, "seperator_token_id", len(tokens), _index(fields, "eos_token_id", len(tokens), 0))
    tokenizer.post_processor = processors.BertProcessing((tokens[end], end), (tokens[start], start))
    return tokenizer


def _index(fields: Mapping[str, Any], name: str, count: int, default: int) -> int:
    value = fields.get(_KEY + name, default)
    if not isinstance(value, int) or not 0 <= value < count:
        raise BadCheckpoint(f"{_KEY}{name} is {value!r}, but there are {count} tokens")
    return value


def _surround(
    fields: Mapping[str, Any], tokens: list[str], *, bos_default: bool
) -> processors.TemplateProcessing | None:
    """What `add_special` puts around a text, by add_bos_token and add_eos_token."""
    wanted = (("bos", bos_default), ("eos", False))
    ids = {
        name: _index(fields, f"{name}_token_id", len(tokens), -1)
        for name, default in wanted
        if fields.get(f"{_KEY}add_{name}_token", default) and f"{_KEY}{name}_token_id" in fields
    }
    if not ids:
        return None
    first = [tokens[ids["bos"]]] if "bos" in ids else []
    last = [tokens[ids["eos"]]] if "eos" in ids else []
    special = [(tokens[index], index) for index in dict.fromkeys(ids.values())]
    return processors.TemplateProcessing(single=[*first, "$A", *last], special_tokens=special)


def _add_whole_tokens(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    def added(wanted: tuple[int, ...], special: bool) -> list[AddedToken]:
        return [
            AddedToken(token, special=special, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in wanted and token
        ]

    tokenizer.add_special_tokens(added((CONTROL, UNKNOWN), special=True))
    tokenizer.add_tokens(added((USER_DEFINED,), special=False))
