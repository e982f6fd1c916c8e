"""Constraints at work: which tokens may come next, as a bitmask, by llguidance's Earley parser.

Compiling a grammar and each step of it are bounded in work and memory by the parser's limits; what goes
beyond them is an error and no hang.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InvalidRequest
from engine.generate.constraint import Constraint
from engine.text.tokenizer import Tokenizer

_NO_TOKEN = "no token of this model's vocabulary goes on as the grammar wants"
_KEPT = 32
"""Compiled grammars kept for requests that come again."""


class Guide:
    """One reply's place in its grammar. Belongs to one sequence; not thread-safe."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    @property
    def error(self) -> str | None:
        """Why the grammar cannot go on: it is too complex here, or it allows no token at all."""
        if not self._matcher.is_error():
            return None
        told = _first_line(self._matcher.get_error())
        return _NO_TOKEN if "NoExtension" in told else told

    def allow(self, words: NDArray[np.uint32]) -> None:
        """Sets bit t % 32 of word t // 32 for each token t that may come next, and no other."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        words[:] = 0
        words[: len(bits)] = bits[: len(words)]

    def advance(self, token: int) -> None:
        self._matcher.consume_token(token)


class GuideMaker:
    """Compiles constraints for one tokenizer. Thread-safe; the tokenizer is read on first use (0.3 s)."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, ends: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._ends = sorted(ends)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Constraint, Any] = OrderedDict()

    def make(self, constraint: Constraint) -> Guide:
        """A guide at the beginning of the text. Raises InvalidRequest for a grammar that cannot be used."""
        with self._lock:
            matcher = self._compiled.get(constraint)
        # Not under the lock: it may take a second, and others need not wait for it.
        matcher = matcher or self._compile(constraint)
        with self._lock:
            self._compiled[constraint] = matcher
            self._compiled.move_to_end(constraint)
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            return Guide(matcher.deep_copy())

    def _compile(self, constraint: Constraint) -> Any:
        from llguidance import LLMatcher

        try:
            matcher = LLMatcher(self._vocabulary, _grammar(constraint), log_level=0)
        except ValueError as error:
            raise _refusal(constraint, str(error)) from error
        if matcher.is_error():
            raise _refusal(constraint, matcher.get_error())
        first = matcher.deep_copy()
        possible = any(first.compute_bitmask())
        if first.is_error() or not possible or (first.is_stopped() and not first.is_accepting()):
            raise _refusal(constraint, first.get_error() or "it allows no text at all")
        return matcher

    @cached_property
    def _vocabulary(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        wrapped = TokenizerWrapper(_Vocabulary(self._tokenizer, self._ends[0]))
        return LLTokenizer(wrapped, n_vocab=self._vocab_size, eos_token=self._ends)


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = end
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)

    def __call__(self, text: bytes) -> list[int]:
        """Tokens that spell the text, up to what none does: some vocabularies lack bytes."""
        found: list[int] = []
        spelt = 0
        for token in self._tokenizer.encode(text.decode(errors="replace")):
            piece = self.tokens[token]
            if not text.startswith(piece, spelt):
                break
            found.append(token)
            spelt += len(piece)
        return found


def _grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher

    if constraint.kind == "json":
        return str(LLMatcher.grammar_from_json_schema(constraint.source))
    if constraint.kind == "regex":
        return str(LLMatcher.grammar_from_regex(constraint.source))
    return str(LLMatcher.grammar_from_lark(constraint.source))


def _refusal(constraint: Constraint, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{constraint.param} cannot be used: {_first_line(reason)}", param=constraint.param)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["unknown"])[0][:300]
