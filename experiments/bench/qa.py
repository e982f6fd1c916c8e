"""How often an answer cites the right page, and how often a question without an answer is left unanswered.

Run: `python -m experiments.bench.qa [FOLDER] [--questions FILE] [--chat] [--all]`. FOLDER holds documents,
FILE is JSON with "answerable" (question, document, page or list of pages, optionally a quote that the
answer must hold) and "unanswerable" (questions). Without arguments: `examples/`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

from engine.documents.answer import Answer
from engine.errors import DocumentError
from experiments.bench.measure import machine
from serve.config import Settings
from serve.runtime import Runtime

EXAMPLES = Path(__file__).parents[2] / "examples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=EXAMPLES / "documents")
    parser.add_argument("--questions", type=Path, default=EXAMPLES / "questions.json")
    parser.add_argument("--chat", action="store_true", help="also ask the chat model, and count what it adds")
    parser.add_argument("--all", action="store_true", help="print every answer, not only the misses")
    options = parser.parse_args()
    cases = json.loads(options.questions.read_text())
    runtime = Runtime.ephemeral(Settings(), with_chat=options.chat)
    try:
        ingest(runtime, options.folder)
        report(runtime, cases, options)
    finally:
        runtime.close()


def ingest(runtime: Runtime, folder: Path) -> None:
    started = perf_counter()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            runtime.ingest(file.name, file.read_bytes())
        except DocumentError as refused:
            print(f"  left out: {refused}")
    documents = runtime.documents()
    pages, passages = sum(d.pages for d in documents), sum(d.passages for d in documents)
    took = perf_counter() - started
    print(f"qa: {len(documents)} documents, {pages} pages, {passages} passages in {took:.1f} s, {machine()}")


def report(runtime: Runtime, cases: dict[str, Any], options: argparse.Namespace) -> None:
    ranks, quoted, generated, seconds = [], [], [], []
    for case in cases["answerable"]:
        answer, took = ask(runtime, case["question"], options.chat)
        rank = rank_of(answer, case["document"], pages_of(case))
        ranks.append(rank)
        seconds.append(took)
        if "quote" in case:
            quoted.append(rank == 1 and case["quote"] in answer.answer)
        generated.append(answer.generated is not None)
        show("answered" if rank == 1 else f"rank {rank or '-'}", answer, options.all or rank != 1)
    refused = []
    for question in cases["unanswerable"]:
        answer, took = ask(runtime, question, options.chat)
        refused.append(not answer.answered)
        seconds.append(took)
        show("refused" if refused[-1] else "INVENTED", answer, options.all or answer.answered)
    first, among = share(rank == 1 for rank in ranks), share(rank > 0 for rank in ranks)
    reciprocal = mean(1 / rank if rank else 0.0 for rank in ranks)
    print(f"  page hit@1 {first}   hit@3 {among}   MRR {reciprocal:.3f}")
    print(f"  right words in the answer {share(quoted)}   unanswerable refused {share(refused)}")
    if options.chat:
        print(f"  grounded answers of the chat model {share(generated)}")
    print(f"  median {1000 * median(seconds):.0f} ms a question")


def ask(runtime: Runtime, question: str, generate: bool) -> tuple[Answer, float]:
    """The answer and its seconds, after each of its quotes was compared with the stored page."""
    started = perf_counter()
    answer = runtime.ask(question, generate=generate)
    took = perf_counter() - started
    ids = {document.name: document.id for document in runtime.documents()}
    for citation in answer.citations:
        page = runtime.page_text(ids[citation.document], citation.page)
        if page[citation.start : citation.end] != citation.quote:
            raise AssertionError(f"a quote is not on its page: {citation}")
    return answer, took


def rank_of(answer: Answer, document: str, pages: set[int]) -> int:
    """The place of the first citation of a right page, from 1; 0 if there is none."""
    for place, citation in enumerate(answer.citations, start=1):
        if citation.document == document and citation.page in pages:
            return place
    return 0


def pages_of(case: dict[str, Any]) -> set[int]:
    page = case["page"]
    return set(page) if isinstance(page, list) else {page}


def share(values: Any) -> str:
    found: Sequence[bool] = list(values)
    return f"{sum(found)}/{len(found)} ({mean(found):.0%})" if found else "none"


def show(label: str, answer: Answer, wanted: bool) -> None:
    if wanted:
        best = answer.citations[0] if answer.citations else None
        place = f"{best.document} p. {best.page} ({best.score:.2f})" if best else "-"
        print(f"  {label:9s} {answer.question}\n            {place}: {answer.answer[:160]}")
        if answer.generated:
            print(f"            model: {answer.generated}")


if __name__ == "__main__":
    main()
