"""What a question over documents is answered with: frozen data, and its JSON."""

from dataclasses import dataclass
from typing import Any, Literal

AnswerKind = Literal["extractive", "generated"]
NOT_IN_DOCUMENTS = "The documents do not contain an answer."


@dataclass(frozen=True)
class Citation:
    """A quotation that is really there: `quote` is characters [start, end) of that page's text.

    `page` is 1-based and physical; `score` in [0, 1] is how sure it is that the quote answers.
    """

    document: str
    page: int
    start: int
    end: int
    quote: str
    score: float


@dataclass(frozen=True)
class Answer:
    """The answer to one question, with where it is written, best citation first.

    `answer` is `extractive` or `generated`, as `kind` says. `generated` is None when no language model
    was asked, or when what it wrote is not borne out by the passages. If `answered` is False, `answer` is
    a fixed sentence and there are no citations.
    """

    question: str
    answered: bool
    answer: str
    kind: AnswerKind
    extractive: str | None
    generated: str | None
    citations: tuple[Citation, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `tarsia ask --json` and `POST /v1/ask`: exactly these keys, in this order."""
        return {
            "question": self.question,
            "answered": self.answered,
            "answer": self.answer,
            "kind": self.kind,
            "extractive": self.extractive,
            "generated": self.generated,
            "citations": [
                {
                    "document": citation.document,
                    "page": citation.page,
                    "start": citation.start,
                    "end": citation.end,
                    "quote": citation.quote,
                    "score": round(citation.score, 4),
                }
                for citation in self.citations
            ],
        }


def unanswered(question: str) -> Answer:
    return Answer(question, False, NOT_IN_DOCUMENTS, "extractive", None, None, ())
