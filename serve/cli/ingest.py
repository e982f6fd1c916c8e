"""`tarsia ingest`: documents into the data folder."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import DocumentError, TarsiaError
from serve.cli.files import NamedFile, named_files
from serve.cli.output import Stage, print_json, print_table, stages
from serve.cli.workplace import Workplace, open_workplace
from serve.config import load_settings


def run(files: Sequence[Path], flags: Mapping[str, Any], config_file: Path | None, *, as_json: bool) -> None:
    settings = load_settings(flags, config_file=config_file).settings
    chosen = named_files(files)
    with stages() as stage, open_workplace(settings, stage, with_chat=False) as workplace:
        records = ingest_all(workplace, chosen, stage)
    for warning in (f"{record['name']}: {line}" for record in records for line in record["warnings"]):
        print(f"tarsia: {warning}", file=sys.stderr)
    if as_json:
        print_json(records)
        return
    print_table(
        ("document", "pages", "status", "id"),
        [(record["name"], str(record["pages"]), record["status"], record["id"]) for record in records],
    )


def ingest_all(workplace: Workplace, files: Sequence[NamedFile], stage: Stage) -> list[dict[str, Any]]:
    """Stores every file that can be read; then, if any could not, raises one error that names them all."""
    records, problems = [], []
    for file in files:
        try:
            records.append(workplace.ingest(file, stage))
        except DocumentError as error:
            problems.append(str(error))
        except TarsiaError as error:
            problems.append(str(error) if file.name in str(error) else f"{file.name}: {error}")
    if problems:
        raise TarsiaError("; ".join(problems))
    return records
