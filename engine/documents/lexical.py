"""Words of questions and sentences: which ones count, how much, and what kind of answer is asked for."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"[^\W_]+(?:[.'’&/+-][^\W_]+)*\+*#?|--?[a-z][\w-]*")
_HYPHENATED = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
_FUNCTION_WORDS = """
a about according also an and any are aren't as at be been because being between both but by called can
can't could describe described did didn't do document documents does doesn't doing don't each every explain
find for from get gets give given gives had happen happened happens has have having he her here hers him his
how i i'm if in into is isn't it its just let like many may me mean means might mine more most much must my
name named no nor not of off on one or other our ours out over own per page please said same say shall she
should so some such tell text than that that's the their theirs them then there there's these they this
those through to too under up upon us use used uses using very was way we were what what's when where which
while who whom whose why will with would you your yours
"""
_NUMERALS = """
two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion
half quarter dozen twice
"""
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
_NUMBER_QUESTION = re.compile(
    r"\bhow (?:many|much|old|long|far|large|big|small|tall|high|deep|wide|thick|fast|often|heavy|hot|cold)\b"
    r"|\bwhat (?:\w+ ){0,5}(?:year|number|percentage|percent|age|size|temperature|price|cost|date|rate|ratio"
    r"|length|width|height|weight|speed|port|version|amount|diameter|thickness)\b|\bwhen\b|\bin which year\b",
    re.I,
)
_NUMBER = re.compile(r"\d")
_SUFFIXES = ("ization", "isation", "ations", "ation", "ments", "ment", "ness", "ings", "ing", "ers", "edly")
_SHORT_SUFFIXES = ("ies", "ied", "es", "ed", "er", "ly", "or", "al", "s", "e", "y")


def words(text: str) -> list[str]:
    """Stems of all words, lower case, accents removed; a word hyphenated at a line end is one word."""
    return [stem(word) for word in _split(text)]


def terms(text: str) -> list[str]:
    """Stems of the words that carry meaning, without repeats, in order."""
    kept = (word for word in _split(text) if word not in _STOP_WORDS)
    return list(dict.fromkeys(stem(word) for word in kept))


def stem(word: str) -> str:
    """A rough English stem: enough to let "glued", "glue" and "gluing" meet; numbers stay as they are."""
    word = word.replace("’", "'").removesuffix("'s")
    if not word.isalpha() or len(word) < 4:
        return word
    for suffix in (*_SUFFIXES, *_SHORT_SUFFIXES):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word.removesuffix(suffix)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word.removesuffix("e")


def rarity(query: Iterable[str], texts: Iterable[Iterable[str]]) -> dict[str, float]:
    """Weight of each query term: BM25's inverse document frequency over the texts at hand, above 0."""
    sets = [set(text) for text in texts]
    found = Counter(term for text in sets for term in text)
    count = len(sets)
    return {term: math.log(1 + (count - found[term] + 0.5) / (found[term] + 0.5)) for term in query}


def coverage(weights: Mapping[str, float], text: set[str]) -> float:
    """The weighted share of the query's terms that the text holds, in [0, 1]; a half if there are none."""
    total = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in text) / total if total else 0.5


def asks_number(question: str) -> bool:
    return _NUMBER_QUESTION.search(question) is not None


def has_number(text: str, besides: str = "") -> bool:
    """Whether the text holds a figure or a number word that `besides` does not."""
    known = set(words(besides))
    return any(word not in known and (_NUMBER.search(word) or word in _NUMBER_STEMS) for word in words(text))


def _split(text: str) -> list[str]:
    """Words, and for a compound ("block-sorting") its parts as well."""
    plain = unicodedata.normalize("NFKD", _HYPHENATED.sub("", text).lower())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    found: list[str] = []
    for match in _WORD.finditer(plain):
        word = match[0]
        found.append(word)
        if not word.isalnum():
            found += [part for part in re.split(r"[^\w]+", word) if len(part) > 1 and part != word]
    return found


_NUMBER_STEMS = frozenset(stem(word) for word in _NUMERALS.split())
