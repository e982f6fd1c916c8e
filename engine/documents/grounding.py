"""Asking a small language model to answer from passages, and believing only what they bear out."""

import re
from collections.abc import Sequence

from engine.documents.lexical import terms
from engine.documents.sentences import sentences
from engine.errors import ContextLengthExceeded, Overloaded
from engine.protocols import TextGenerator

MAX_TOKENS = 96
_MAX_CONTEXT = 1600
_MIN_SUPPORTED = 0.8
_MAX_SENTENCES = 2
_REFUSAL = re.compile(
    r"\b(?:not (?:mention|provide|state|specif|contain|say)|no information|cannot|can't|sorry)", re.I
)
_INSTRUCTION = """\
Answer the question in one short sentence, using only the text. Keep names and numbers as they are written."""


def generated_answer(generator: TextGenerator, question: str, quotes: Sequence[str]) -> str | None:
    """The model's answer from the quotations, or None if they do not bear it out.

    A model that is busy, or whose context is too short, gives None as well: the quotation stands alone.
    """
    context = _context(quotes)
    messages = [
        {"role": "system", "content": _INSTRUCTION},
        {"role": "user", "content": f"Text:\n{context}\n\nQuestion: {question}"},
    ]
    try:
        reply = generator.complete(messages, max_tokens=MAX_TOKENS)
    except (ContextLengthExceeded, Overloaded):
        return None
    answer = _first_sentences(reply)
    return answer if is_grounded(answer, question, context) else None


def is_grounded(answer: str, question: str, context: str) -> bool:
    """Whether the words of an answer come from the context.

    Every figure must occur there, at least four in five of the words that carry meaning must occur there
    or in the question, and at least one must be new to the question: else it only repeats it.
    """
    said, known, asked = terms(answer), set(terms(context)), set(terms(question))
    new = [term for term in said if term not in asked]
    figures = [term for term in said if any(char.isdigit() for char in term)]
    if not new or _REFUSAL.search(answer) or any(term not in known for term in figures):
        return False
    supported = sum(term in known or term in asked for term in said)
    return any(term in known for term in new) and supported >= _MIN_SUPPORTED * len(said)


def _context(quotes: Sequence[str]) -> str:
    """The quotations as paragraphs, the best first, as many as a small model reads well."""
    kept: list[str] = []
    room = _MAX_CONTEXT
    for quote in quotes:
        if kept and len(quote) > room:
            break
        kept.append(quote[:_MAX_CONTEXT])
        room -= len(quote)
    return "\n\n".join(kept)


def _first_sentences(reply: str) -> str:
    """At most two sentences of the first paragraph: what follows is usually invention or repetition."""
    paragraph = reply.strip().split("\n\n", 1)[0].strip()
    spans = sentences(paragraph)[:_MAX_SENTENCES]
    return " ".join(paragraph[spans[0][0] : spans[-1][1]].split()) if spans else ""
