"""Which rows each word occurs in, and how often: the part of the text index that belongs to one segment.

Derived from the texts, kept in memory, never stored. A merged segment's postings are made from its
inputs' without reading a text again.
"""

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]

_ES_PLURALS = ("sses", "xes", "zzes", "shes", "tches", "rches", "nches")
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")


def words(text: str) -> list[str]:
    """Letters and digits of any script, case-folded, without accents; a plain English plural loses its s.

    Chinese and Japanese, written without spaces, give one word per character.

    >>> words("Café  prices, IN 2024")
    ['cafe', 'price', 'in', '2024']
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(char for char in decomposed if not unicodedata.combining(char))
    return [_singular(word) for word in _WORD.findall(text.casefold())]


def _singular(word: str) -> str:
    """Harman's S-stemmer, and the plurals in -es whose singular has no e."""
    if len(word) <= 3 or word[-1] != "s" or word[-2] in "sui" or not word.isascii():
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(_ES_PLURALS) else word[:-1]


@dataclass(frozen=True)
class Posting:
    """Rows with a word, ascending, and how often it occurs in each."""

    rows: Int32
    counts: Int32


_NOTHING = Posting(np.zeros(0, np.int32), np.zeros(0, np.int32))


class Postings:
    """Append-only by row. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[str, tuple[list[int], list[int]]] = {}
        self._frozen: dict[str, Posting] = {}
        self._lengths = array("i")

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> Int32:
        """Words in each row; 0 for a row without text."""
        with self._lock:
            return np.array(self._lengths, np.int32)

    def extend(self, texts: Iterable[str | None]) -> None:
        for text in texts:
            found = words(text) if text else []
            with self._lock:
                self._add(found)

    def _add(self, found: Sequence[str]) -> None:
        row = len(self._lengths)
        self._lengths.append(len(found))
        for word, count in Counter(found).items():
            rows, counts = self._open.setdefault(word, ([], []))
            rows.append(row)
            counts.append(count)

    def find(self, word: str) -> Posting:
        """The word as `words` gives it."""
        with self._lock:
            before = self._frozen.get(word, _NOTHING)
            recent = self._open.get(word)
            if recent is None:
                return before
            rows, counts = (np.array(part, np.int32) for part in recent)
        return Posting(np.concatenate([before.rows, rows]), np.concatenate([before.counts, counts]))

    def freeze(self) -> "Postings":
        """The same in a third of the memory, for one that will not grow. Returns itself."""
        frozen = {word: self.find(word) for word in self.vocabulary()}
        with self._lock:
            self._frozen, self._open = frozen, {}
        return self

    def vocabulary(self) -> set[str]:
        with self._lock:
            return {*self._open, *self._frozen}

    @classmethod
    def merged(
        cls, parts: Sequence[tuple["Postings", Int32]], order: NDArray[np.int64] | None = None
    ) -> "Postings":
        """Postings of rows gathered from several: `(part, rows kept, ascending)`, one after the other.

        With `order`, the i-th row of the result is the order[i]-th of those.
        """
        total = sum(len(kept) for _, kept in parts)
        places, lengths = np.empty(total, np.int32), np.empty(total, np.int32)
        places[np.arange(total) if order is None else order] = np.arange(total, dtype=np.int32)
        merged, base = cls(), 0
        collected: dict[str, list[Posting]] = {}
        for part, kept in parts:
            place = np.full(len(part), -1, np.int32)
            place[kept] = placed = places[base : base + len(kept)]
            lengths[placed] = part.lengths[kept]
            for word in part.vocabulary():
                posting = part.find(word)
                rows = place[posting.rows]
                collected.setdefault(word, []).append(Posting(rows[rows >= 0], posting.counts[rows >= 0]))
            base += len(kept)
        merged._lengths.extend(lengths.tolist())
        for word, found in collected.items():
            rows = np.concatenate([posting.rows for posting in found])
            if rows.size:
                ascending = np.argsort(rows, kind="stable")
                counts = np.concatenate([posting.counts for posting in found])
                merged._frozen[word] = Posting(rows[ascending], counts[ascending])
        return merged
