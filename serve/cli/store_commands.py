"""The commands of the vector database and their flags; what they do is in `serve.cli.collections`."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one document on stdout.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of documents and collections.", show_default=False)
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Read this tarsia.toml.", show_default=False)
]
Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name: see `tarsia collections`.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="COLLECTIONS", help="Their names; without any, all.")
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The ending says the format.")]
Filter = Annotated[
    str | None, typer.Option(metavar="JSON", help="Only rows like '{\"year\": 2024}'.", show_default=False)
]
SnapshotName = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Its name.")]


class Format(Enum):
    """Files that rows come from and go to."""

    jsonl = "jsonl"
    npy = "npy"
    npz = "npz"
    parquet = "parquet"
    fvecs = "fvecs"
    ivecs = "ivecs"
    bvecs = "bvecs"


class Metric(Enum):
    """How vectors are compared."""

    cosine = "cosine"
    dot = "dot"
    l2 = "l2"


FileFormat = Annotated[Format | None, typer.Option("--format", help="If the ending does not say it.")]
snapshot = typer.Typer(help="Keep a collection as it is now, and bring it back.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (collections, search, compact, verify):
        app.command()(command)
    app.command("import")(import_file)
    app.command("export")(export_file)
    app.add_typer(snapshot, name="snapshot")


def collections(as_json: AsJson = False, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """The vector collections there are."""
    from serve.cli.collections import run_list

    run_list({"data_dir": data_dir}, config_file, as_json=as_json)


def search(
    name: Name,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to look for.")] = None,
    vector: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON list or .npy instead.", show_default=False)
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="By the words of TEXT, not by its meaning.")] = False,
    k: Annotated[int, typer.Option("-k", help="Rows to find.")] = 10,
    filter: Filter = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every row.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what was looked at, and why.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Find the rows of a collection nearest to a text or a vector."""
    from serve.cli.collections import run_search

    run_search(
        name,
        text,
        {"data_dir": data_dir},
        config_file,
        vector=vector,
        words=words,
        k=k,
        filter=filter,
        exact=exact,
        explain=explain,
        as_json=as_json,
    )


def import_file(
    name: Name,
    file: File,
    format: FileFormat = None,
    metric: Annotated[
        Metric | None, typer.Option(help="Of a new collection. [cosine]", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="That made the vectors.", show_default=False)] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Put the rows of a file into a collection, or a new one; rows with known ids are replaced."""
    from serve.cli.collections import run_import

    run_import(
        name,
        file,
        {"data_dir": data_dir},
        config_file,
        format=format.value if format else None,
        metric=metric.value if metric else None,
        model=model,
        as_json=as_json,
    )


def export_file(
    name: Name,
    file: File,
    format: FileFormat = None,
    filter: Filter = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Write the rows of a collection into a file."""
    from serve.cli.collections import run_export

    chosen = format.value if format else None
    run_export(name, file, {"data_dir": data_dir}, config_file, format=chosen, filter=filter, as_json=as_json)


def compact(
    names: Names = None, as_json: AsJson = False, data_dir: DataDir = None, config_file: ConfigFile = None
) -> None:
    """Merge collections into one segment each, build their graphs, give the space of dead rows back."""
    from serve.cli.collections import run_compact

    run_compact(names or [], {"data_dir": data_dir}, config_file, as_json=as_json)


def verify(
    names: Names = None, as_json: AsJson = False, data_dir: DataDir = None, config_file: ConfigFile = None
) -> None:
    """Read every byte of collections and check it."""
    from serve.cli.collections import run_verify

    run_verify(names or [], {"data_dir": data_dir}, config_file, as_json=as_json)


@snapshot.command("create")
def snapshot_create(
    name: Name, snapshot: SnapshotName, data_dir: DataDir = None, config_file: ConfigFile = None
) -> None:
    """Keep the rows as they are now."""
    from serve.cli.collections import run_snapshot_create

    run_snapshot_create(name, snapshot, {"data_dir": data_dir}, config_file)


@snapshot.command("list")
def snapshot_list(
    name: Annotated[str | None, typer.Argument(metavar="COLLECTION")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """The snapshots there are."""
    from serve.cli.collections import run_snapshot_list

    run_snapshot_list(name, {"data_dir": data_dir}, config_file, as_json=as_json)


@snapshot.command("restore")
def snapshot_restore(
    name: Name,
    snapshot: SnapshotName,
    into: Annotated[str | None, typer.Option(help="Restore under this name.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the collection there is.")] = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Bring the rows of a snapshot back."""
    from serve.cli.collections import run_snapshot_restore

    run_snapshot_restore(name, snapshot, {"data_dir": data_dir}, config_file, into=into, overwrite=overwrite)


@snapshot.command("delete")
def snapshot_delete(
    name: Name, snapshot: SnapshotName, data_dir: DataDir = None, config_file: ConfigFile = None
) -> None:
    """Give the space of a snapshot back."""
    from serve.cli.collections import run_snapshot_delete

    run_snapshot_delete(name, snapshot, {"data_dir": data_dir}, config_file)
