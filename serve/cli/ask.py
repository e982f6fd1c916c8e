"""`tarsia ask`: an answer with its citations, from given files or from everything ingested."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from engine.documents.quotes import readable
from serve.cli.files import named_files
from serve.cli.ingest import ingest_all
from serve.cli.output import print_json, stages
from serve.cli.workplace import open_scratch, open_workplace
from serve.config import load_settings


def run(
    question: str,
    files: Sequence[Path],
    flags: Mapping[str, Any],
    config_file: Path | None,
    *,
    as_json: bool,
    generate: bool,
) -> None:
    """Files without a data folder are read, asked and forgotten; with one they are kept there."""
    settings = load_settings(flags, config_file=config_file).settings
    chosen = named_files(files)
    passing = bool(files) and flags.get("data_dir") is None
    place = open_scratch if passing else open_workplace
    with stages() as stage, place(settings, stage, with_chat=generate) as workplace:
        records = ingest_all(workplace, chosen, stage)
        stage("find the answer", 0, 1)
        ids = [record["id"] for record in records] if files else None
        answer = workplace.ask(question, document_ids=ids, generate=generate)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _show(answer: Mapping[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    if not answer["answered"]:
        console.print("The documents do not answer this question.")
        return
    console.print(Text(answer["answer"], style="bold"))
    for citation in answer["citations"]:
        place = f"{citation['document']}, page {citation['page']}"
        console.print(Text(f"  {place}: ", style="cyan") + Text(f"“{readable(citation['quote'])}”"))
    generated = answer["generated"]
    if generated and generated != answer["answer"]:
        console.print(Text(f"  the chat model's words: {generated}", style="dim"))
