"""Questions over documents: find passages, rank their sentences, quote the best, or say it is not there."""

from collections.abc import Sequence
from typing import Literal

from engine.documents.answer import Answer, AnswerKind, Citation, unanswered
from engine.documents.evidence import Evidence, Sentence, gather
from engine.documents.grounding import generated_answer
from engine.documents.quotes import quote_span, readable
from engine.documents.ranking import chance, evidence_logits
from engine.errors import InvalidRequest
from engine.protocols import Embedder, PageSource, Retriever, TextGenerator

PASSAGES = 14
THRESHOLD = 0.5
MAX_QUESTION = 2000
_MAX_CITATIONS = 3
_MAX_BEHIND = 2.5


class DocumentQA:
    """Answers questions from stored passages, with quotations checked against their pages.

    The answer is the sentence (or two or three that belong together) most likely to answer, as it is
    written in the document: with a model of some hundred million parameters that beats what the model
    writes. The model's own wording is given beside it in `generated`, if a generator is there and the
    quotations bear it out; `prefer="generated"` makes that one the `answer` whenever it exists.

    Thread-safe if its parts are.

        >>> qa = DocumentQA(library, library, embedder, None)
        >>> answer = qa.answer("When does the larch shed its needles?")
        >>> answer.answered, answer.citations[0].page
        (True, 3)

    Args:
        retriever: finds passages for the question's vector and words.
        pages: the text of whole pages, against which quotations are checked.
        embedder: the model that embedded the passages.
        generator: a chat model, or None for quotations alone.
        threshold: least chance in [0, 1] that the best sentence answers; below it the question is unanswered.
        prefer: which of the two is `answer` when both exist.
    """

    def __init__(
        self,
        retriever: Retriever,
        pages: PageSource,
        embedder: Embedder,
        generator: TextGenerator | None,
        *,
        threshold: float = THRESHOLD,
        prefer: AnswerKind = "extractive",
    ) -> None:
        self._retriever = retriever
        self._pages = pages
        self._embedder = embedder
        self._generator = generator
        self._threshold = threshold
        self._prefer: Literal["extractive", "generated"] = prefer

    def answer(
        self,
        question: str,
        *,
        document_ids: Sequence[str] | None = None,
        k: int = PASSAGES,
        generate: bool = True,
    ) -> Answer:
        """The answer from all documents, or the given ones; `k` passages are looked at.

        Raises:
            InvalidRequest: the question is empty or longer than 2,000 characters, or k is not positive.
        """
        question = _checked(question, k)
        vector = self._embedder.embed([question], role="query")[0]
        passages = self._retriever.retrieve(vector, question, k=k, document_ids=document_ids)
        evidence = gather(question, vector, passages, self._pages, self._embedder)
        citations = cite(evidence)
        if not citations or citations[0].score < self._threshold:
            return unanswered(question)
        extractive = readable(citations[0].quote)
        generated = None
        if generate and self._generator is not None:
            quotes = [readable(citation.quote) for citation in citations]
            generated = generated_answer(self._generator, question, quotes)
        kind: AnswerKind = "generated" if generated and self._prefer == "generated" else "extractive"
        text = generated if generated and kind == "generated" else extractive
        return Answer(question, True, text, kind, extractive, generated, tuple(citations))


def cite(evidence: Evidence) -> list[Citation]:
    """Up to three quotations, the likeliest first; none says again what another said."""
    citations: list[Citation] = []
    if not evidence.candidates:
        return citations
    logits = evidence_logits(evidence.candidates).tolist()
    best_first = sorted(range(len(logits)), key=lambda at: -logits[at])
    for at in best_first:
        if logits[at] < logits[best_first[0]] - _MAX_BEHIND or len(citations) == _MAX_CITATIONS:
            break
        citation = _quote(evidence.candidates[at].sentence, evidence, chance(logits[at]))
        if citation is not None and not any(_same(citation, other) for other in citations):
            citations.append(citation)
    return citations


def _quote(sentence: Sentence, evidence: Evidence, score: float) -> Citation | None:
    """A citation whose quote has been compared with the page, or None if it is not there."""
    page = evidence.pages[sentence.document_id, sentence.page]
    start, end = quote_span(page, sentence)
    quote = page.text[start:end]
    if not (start <= sentence.start < end and sentence.text[: end - sentence.start] in quote):
        return None
    return Citation(sentence.document, sentence.page, start, end, quote, score)


def _same(one: Citation, other: Citation) -> bool:
    """Whether two citations overlap on a page, or one repeats the words of the other."""
    here = (one.document, one.page) == (other.document, other.page)
    overlaps = here and one.start < other.end and other.start < one.end
    return overlaps or readable(one.quote).casefold() == readable(other.quote).casefold()


def _checked(question: str, k: int) -> str:
    text = question.strip()
    if not text:
        raise InvalidRequest("the question is empty", param="question")
    if len(text) > MAX_QUESTION:
        raise InvalidRequest(
            f"the question has {len(text):,} characters; at most {MAX_QUESTION:,} are read", param="question"
        )
    if k < 1:
        raise InvalidRequest(f"k must be at least 1, not {k}", param="k")
    return text
