"""Text to token ids and back, from a `tokenizer.json` folder or from a GGUF file's vocabulary."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from engine.errors import BadCheckpoint, InvalidRequest, TarsiaError
from engine.text import gguf_vocab

_END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
)
"""Control tokens that end a reply in any chat format we read; a model may emit one that is not its eos."""

_PROBE = "a B-1 é\u3042\U0010ffff"
"""Encoded once at load: some damage shows only at the first word or the first unknown character."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class TextPair:
    """Two texts as one sequence; `types` says of each token which text it is of, 0 or 1."""

    ids: list[int]
    types: list[int]


class Tokenizer:
    """One model's tokenizer. Immutable after construction and safe to share between threads.

    Control tokens (`<|im_start|>` and the like) inside a text are ordinary characters unless
    `parse_special=True`: text from a user cannot forge them.

    >>> tokenizer = tokenizer_from_folder(Path("all-minilm-l6-v2"))
    >>> tokenizer.encode("a happy person", add_special=True)
    [101, 1037, 3407, 2711, 102]
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        bos_id: int | None = None,
        eos_ids: Iterable[int] = (),
        pad_id: int | None = None,
    ) -> None:
        inner.no_truncation()
        inner.no_padding()
        self._parsing = inner
        # The switch is state of the Rust object, so each mode has its own copy: no races.
        self._plain = tokenizers.Tokenizer.from_str(inner.to_str())
        self._plain.encode_special_tokens = True
        self.bos_id = bos_id
        self.eos_ids = tuple(dict.fromkeys(eos_ids))
        self.pad_id = pad_id
        self._decoder = _decoder_kind(inner)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return 1 + max(self._parsing.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def longest(self) -> int:
        """The most characters that one token stands for, at least."""
        return max(map(len, self._parsing.get_vocab(with_added_tokens=True)), default=1)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the control tokens."""
        added = self._parsing.get_added_tokens_decoder()
        return frozenset(index for index, token in added.items() if token.special)

    @cached_property
    def special_texts(self) -> frozenset[str]:
        """The control tokens as they are written in a text."""
        added = self._parsing.get_added_tokens_decoder()
        return frozenset(token.content for token in added.values() if token.special)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of `text`; `add_special` puts the model's own bos/eos or [CLS]/[SEP] around it."""
        inner = self._parsing if parse_special else self._plain
        ids: list[int] = inner.encode(_valid(text), add_special_tokens=add_special).ids
        return ids

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        add_special: bool = False,
        parse_special: bool = False,
        max_length: int | None = None,
    ) -> list[list[int]]:
        """Token ids of each text, unpadded; at most `max_length` ids each, the special ones kept."""
        inner = self._parsing if parse_special else self._plain
        encodings = inner.encode_batch([_valid(text) for text in texts], add_special_tokens=False)
        if max_length is not None:
            room = max_length - (inner.num_special_tokens_to_add(False) if add_special else 0)
            for encoding in encodings:
                encoding.truncate(max(room, 0))
        if add_special:
            encodings = [inner.post_process(encoding) for encoding in encodings]
        return [encoding.ids for encoding in encodings]

    def encode_pairs(self, first: str, seconds: Sequence[str], *, max_length: int) -> list[TextPair]:
        """`first` with each of `seconds`, the special tokens around and between, at most `max_length` ids.

        Where a pair is too long, the longer text is cut, then both to the same length.
        """
        inner = self._plain
        room = max(max_length - inner.num_special_tokens_to_add(True), 0)
        valid = [_valid(second) for second in seconds]
        firsts = inner.encode_batch([_valid(first)] * len(valid), add_special_tokens=False)
        pairs = []
        for one, two in zip(firsts, inner.encode_batch(valid, add_special_tokens=False), strict=True):
            shares = _shares(len(one.ids), len(two.ids), room)
            one.truncate(shares[0])
            two.truncate(shares[1])
            joined = inner.post_process(one, two)
            pairs.append(TextPair(joined.ids, joined.type_ids))
        return pairs

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The half-open character range of `text` behind each token of `encode(text)`."""
        spans: list[tuple[int, int]] = self._plain.encode(_valid(text), add_special_tokens=False).offsets
        return spans

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        text: str = self._parsing.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token adds to a text, which may be part of a character; b"" if unknown."""
        token = self._parsing.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._added_ids:
            return str(token).encode()
        return _token_bytes(token, self._decoder)

    def token_id(self, token: str) -> int | None:
        """The id of a token written out, such as "<|im_end|>"; None if there is none."""
        index: int | None = self._parsing.token_to_id(token)
        return index

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        return frozenset(self._parsing.get_added_tokens_decoder())


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text stay: the longer gives way; two long ones share the room evenly."""
    shorter = min(first, second)
    if first + second <= room:
        return first, second
    if 2 * shorter >= room:
        kept = (room // 2, room - room // 2)
        return kept if first <= second else kept[::-1]
    return (first, room - first) if first <= second else (room - second, second)


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"text holds a lone surrogate at character {error.start}") from error
    return text


def _decoder_kind(inner: tokenizers.Tokenizer) -> str:
    """How a token's string stands for bytes: "bytes", "spaces" (U+2581), "pieces" (##) or "plain"."""
    if inner.decoder is None:
        return "plain"
    state = json.dumps(json.loads(inner.decoder.__getstate__()))
    marks = (
        ("ByteLevel", "bytes"),
        ("ByteFallback", "spaces"),
        ("Metaspace", "spaces"),
        ("WordPiece", "pieces"),
    )
    return next((kind for mark, kind in marks if f'"{mark}"' in state), "plain")


def _token_bytes(token: str, decoder: str) -> bytes:
    if decoder == "bytes":
        return b"".join(_BYTE_OF_CHAR.get(char, char.encode()) for char in token)
    if decoder == "spaces":
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
    if decoder == "pieces":
        return token[2:].encode() if token.startswith("##") else f" {token}".encode()
    return token.encode()


def _byte_of_char() -> dict[str, bytes]:
    """GPT-2's printable stand-in for each byte, inverted (`bytes_to_unicode`, Radford et al. 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    table = {chr(byte): bytes([byte]) for byte in printable}
    return table | {chr(256 + n): bytes([byte]) for n, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()


def tokenizer_from_folder(path: Path) -> Tokenizer | None:
    """The tokenizer of a folder in Hugging Face layout; None if it has no tokenizer.json.

    Truncation and padding written in tokenizer.json are ignored: callers bound lengths themselves.
    Raises BadCheckpoint for a damaged file.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        return None
    named = _special_names(path)
    declared = [*_declared_eos(path / "generation_config.json"), *_declared_eos(path / "config.json")]
    with _refusing_damage(f"{file.name} in {path} is damaged"):
        inner = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        ids = {key: inner.token_to_id(token) for key, token in named.items()}
        return _probed(
            Tokenizer(
                inner,
                bos_id=ids.get("bos_token"),
                eos_ids=[index for index in (ids.get("eos_token"), *declared) if index is not None]
                + _known_ends(inner),
                pad_id=ids.get("pad_token"),
            )
        )


@contextmanager
def _refusing_damage(what: str) -> Iterator[None]:
    """Turns every failure of `tokenizers` into BadCheckpoint, its Rust panics included."""
    try:
        yield
    except (TarsiaError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadCheckpoint(f"{what}: {lines[0]}") from error


def _probed(tokenizer: Tokenizer) -> Tokenizer:
    for parse_special in (False, True):
        tokenizer.decode(tokenizer.encode(_PROBE, add_special=True, parse_special=parse_special))
    return tokenizer


def _read_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{file.name} in {file.parent} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{file.name} in {file.parent} must hold a JSON object")
    return value


def _special_names(path: Path) -> dict[str, str]:
    """bos_token, eos_token, pad_token as strings; either file may give a string or an object."""
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _read_object(path / file).items():
            content = value.get("content") if isinstance(value, dict) else value
            if key in ("bos_token", "eos_token", "pad_token") and isinstance(content, str):
                names[key] = content
    return names


def _declared_eos(file: Path) -> list[int]:
    value = _read_object(file).get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and v >= 0]


def _known_ends(inner: tokenizers.Tokenizer) -> list[int]:
    added = inner.get_added_tokens_decoder()
    return [index for index, token in added.items() if token.special and token.content in _END_TOKENS]


def tokenizer_from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of GGUF metadata (key -> plain Python value).

    Raises UnsupportedModel for a tokenizer or pre-tokenizer we do not know (by name) and
    BadCheckpoint for a vocabulary that contradicts itself.
    """
    with _refusing_damage("the GGUF tokenizer cannot be built"):
        inner = gguf_vocab.build(fields)
    count = len(fields["tokenizer.ggml.tokens"])

    def named(name: str) -> int | None:
        index = fields.get(f"tokenizer.ggml.{name}_token_id")
        if index is not None and not (isinstance(index, int) and 0 <= index < count):
            raise BadCheckpoint(f"tokenizer.ggml.{name}_token_id is {index!r}, but there are {count} tokens")
        return index

    ends = [index for name in ("eos", "eot", "eom") if (index := named(name)) is not None]
    with _refusing_damage("the GGUF tokenizer does not work"):
        return _probed(
            Tokenizer(
                inner,
                bos_id=named("bos"),
                eos_ids=[*ends, *_known_ends(inner)],
                pad_id=named("padding"),
            )
        )
