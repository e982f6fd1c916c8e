"""`tarsia collections`, `search`, `import`, `export`, `compact`, `verify`, `snapshot`: vectors by hand."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InvalidRequest
from serve.cli.output import Stage, print_json, print_table, stages
from serve.config import Settings, load_settings
from stores import Collection, Database, Hits
from stores.errors import CollectionNotFound
from stores.interchange import export_rows, import_rows

Flags = Mapping[str, Any]


@contextmanager
def _opened(flags: Flags, config_file: Path | None) -> Iterator[tuple[Settings, Database]]:
    """The database of the data folder. StoreLocked while a server has it."""
    settings = load_settings(flags, config_file=config_file).settings
    with Database.open(settings.data_dir) as database:
        yield settings, database


def _existing(database: Database, name: str) -> Collection:
    if name not in database.collections():
        raise CollectionNotFound(
            f"no collection {name!r} in {database.path}; `tarsia collections` lists what there is, "
            f"`tarsia import {name} FILE` makes one"
        )
    return database.collection(name)


def _counting(stage: Stage, what: str, total: int = 0) -> Callable[[int], None]:
    return lambda done: stage(what, done, max(total, done))


def _sharing(stage: Stage, what: str) -> Callable[[float], None]:
    return lambda share: stage(what, round(1000 * share), 1000)


def run_list(flags: Flags, config_file: Path | None, *, as_json: bool) -> None:
    with _opened(flags, config_file) as (_, database):
        rows = [_facts(database.collection(name)) for name in database.collections()]
    if as_json:
        print_json(rows)
        return
    columns = ("name", "rows", "dim", "metric", "model", "segments", "disk_bytes")
    print_table(columns, [[str(row[column]) for column in columns] for row in rows])


def _facts(collection: Collection) -> dict[str, Any]:
    schema = collection.schema
    about = {"name": collection.name, "dim": schema.dim, "metric": schema.metric, "model": schema.model}
    return {**about, **asdict(collection.stats())}


def run_search(
    name: str,
    text: str | None,
    flags: Flags,
    config_file: Path | None,
    *,
    vector: Path | None,
    words: bool,
    k: int,
    filter: str | None,
    exact: bool,
    explain: bool,
    as_json: bool,
) -> None:
    if (text is None) == (vector is None):
        raise InvalidRequest('search by a text, `tarsia search NAME "words"`, or by --vector FILE')
    condition = _filter(filter)
    with _opened(flags, config_file) as (settings, database), stages() as stage:
        collection = _existing(database, name)
        query, model = (None, None) if words else _query(settings, collection, text, vector, stage)
        only_words = text if query is None else None
        hits = collection.search(
            query, k, text=only_words, model=model, filter=condition, exact=exact, explain=explain
        )
    _show(hits, as_json=as_json)


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"--filter is not JSON: {error}; for example '{{\"year\": 2024}}'") from error
    if not isinstance(found, dict):
        raise InvalidRequest("--filter takes a JSON object, for example '{\"year\": 2024}'")
    return found


def _query(
    settings: Settings, collection: Collection, text: str | None, vector: Path | None, stage: Stage
) -> tuple[Any, str | None]:
    """The query vector, and the model that made it."""
    if vector is not None:
        return _read_vector(vector), None
    if collection.schema.model is None:
        raise InvalidRequest(
            f"{collection.name!r} does not say which model made its vectors: give --vector FILE, or --words"
        )
    from engine import Engine

    stage(f"load {settings.embedding_model}", 0, 1)
    engine = Engine.load(settings.embedding_model)
    return engine.embed([text or ""], role="query")[0], engine.embedder.model_id


def _read_vector(path: Path) -> Any:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path}: neither a JSON list of numbers nor a .npy file: {error}") from error


def _show(hits: Hits, *, as_json: bool) -> None:
    if as_json:
        explanation = None if hits.explanation is None else asdict(hits.explanation)
        print_json({"hits": [asdict(hit) for hit in hits], "explanation": explanation})
        return
    shown = [hit.text or json.dumps(hit.metadata, ensure_ascii=False) for hit in hits]
    rows = [
        (f"{hit.score:.4f}", hit.id, " ".join(text.split())[:160])
        for hit, text in zip(hits, shown, strict=True)
    ]
    print_table(("score", "id", "text"), rows)
    if hits.explanation is not None:
        print(hits.explanation)


def run_import(
    name: str,
    file: Path,
    flags: Flags,
    config_file: Path | None,
    *,
    format: str | None,
    metric: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    with _opened(flags, config_file) as (_, database), stages() as stage:

        def opened(dim: int) -> Collection:
            return database.collection(name, dim=dim, metric=metric, model=model)  # type: ignore[arg-type]

        report = import_rows(opened, file, format=format, progress=_counting(stage, f"import {file.name}"))
    _report({**asdict(report), "collection": name}, as_json)


def run_export(
    name: str,
    file: Path,
    flags: Flags,
    config_file: Path | None,
    *,
    format: str | None,
    filter: str | None,
    as_json: bool,
) -> None:
    condition = _filter(filter)
    with _opened(flags, config_file) as (_, database), stages() as stage:
        collection = _existing(database, name)
        counting = _counting(stage, f"export {file.name}", collection.count(filter=condition))
        report = export_rows(collection, file, format=format, filter=condition, progress=counting)
    _report({**asdict(report), "file": str(file)}, as_json)


def _report(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_table(("what", "value"), [(key, str(value)) for key, value in facts.items()])


def run_compact(names: Sequence[str], flags: Flags, config_file: Path | None, *, as_json: bool) -> None:
    done = []
    with _opened(flags, config_file) as (_, database), stages() as stage:
        for name in names or database.collections():
            collection = _existing(database, name)
            before = collection.stats().disk_bytes
            collection.compact(progress=_sharing(stage, f"compact {name}"))
            after = collection.stats().disk_bytes
            done.append({"name": name, "disk_bytes_before": before, "disk_bytes": after})
    if as_json:
        print_json(done)
        return
    columns = ("name", "disk_bytes_before", "disk_bytes")
    print_table(columns, [[str(row[column]) for column in columns] for row in done])


def run_verify(names: Sequence[str], flags: Flags, config_file: Path | None, *, as_json: bool) -> None:
    """Every byte against its checksum; the first damage ends it with an error that names the file."""
    found = []
    with _opened(flags, config_file) as (_, database), stages() as stage:
        chosen = list(names or database.collections())
        for number, name in enumerate(chosen):
            stage("verify", number, len(chosen))
            found.append({"name": name, **asdict(_existing(database, name).verify())})
    if as_json:
        print_json(found)
        return
    columns = ("name", "files", "bytes", "rows")
    print_table(columns, [[str(row[column]) for column in columns] for row in found])


def run_snapshot_create(name: str, snapshot: str, flags: Flags, config_file: Path | None) -> None:
    with _opened(flags, config_file) as (_, database):
        print(_existing(database, name).snapshot(snapshot).path)


def run_snapshot_list(name: str | None, flags: Flags, config_file: Path | None, *, as_json: bool) -> None:
    with _opened(flags, config_file) as (_, database):
        found = database.snapshots(name)
    if as_json:
        print_json([{**asdict(one), "path": str(one.path)} for one in found])
        return
    created = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created)) for one in found]
    rows = [
        (one.collection, one.name, str(one.rows), str(one.bytes), when)
        for one, when in zip(found, created, strict=True)
    ]
    print_table(("collection", "snapshot", "rows", "disk_bytes", "created"), rows)


def run_snapshot_restore(
    name: str, snapshot: str, flags: Flags, config_file: Path | None, *, into: str | None, overwrite: bool
) -> None:
    with _opened(flags, config_file) as (_, database):
        restored = database.restore(name, snapshot, into=into, overwrite=overwrite)
        print_table(("collection", "rows"), [(restored.name, str(restored.count()))])


def run_snapshot_delete(name: str, snapshot: str, flags: Flags, config_file: Path | None) -> None:
    with _opened(flags, config_file) as (_, database):
        database.delete_snapshot(name, snapshot)
