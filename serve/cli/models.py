"""`tarsia models`: what is there, what could be, and how to get it."""

from pathlib import Path

from engine import pull as pulling
from engine.registry import BUNDLED, KNOWN_MODELS, installed_models, models_dir
from serve.cli.output import logged_stages, print_json, print_table


def run_list(*, as_json: bool) -> None:
    installed = {model.name: model for model in installed_models()}
    rows = [
        {
            "name": model.alias,
            "installed": model.alias in installed,
            "kind": model.kind,
            "size": model.size,
            "licence": model.licence,
            "source": model.source,
            "sha256": model.files[0].sha256,
            "summary": model.summary,
        }
        for model in KNOWN_MODELS
    ]
    rows += [
        {
            "name": name,
            "installed": True,
            "kind": "vision",
            "size": _size(path),
            "licence": "Apache-2.0",
            "source": "comes with Tarsia",
            "sha256": None,
            "summary": "names ten kinds of clothes in images",
        }
        for name, path in BUNDLED.items()
    ]
    rows += [
        {
            "name": model.name,
            "installed": True,
            "kind": None,
            "size": _size(model.path),
            "licence": None,
            "source": str(model.path.resolve()),
            "sha256": None,
            "summary": "added by you",
        }
        for model in installed.values()
        if model.known is None
    ]
    if as_json:
        print_json({"models_dir": str(models_dir()), "models": rows})
        return
    print_table(
        ("model", "installed", "size", "licence", "source", "sha256", "what it is"),
        [
            (
                str(row["name"]),
                "yes" if row["installed"] else "no",
                f"{int(str(row['size'])) / 1e6:.0f} MB",
                str(row["licence"] or "-"),
                str(row["source"]),
                str(row["sha256"] or "-")[:12],
                str(row["summary"]),
            )
            for row in rows
        ],
    )


def run_pull(names: list[str]) -> None:
    wanted = names or [model.alias for model in KNOWN_MODELS if model.default]
    for name in wanted:
        with logged_stages() as stage:
            model = pulling.pull(name, stage)
        print(f"{model.name}: {model.path}")


def run_add(name: str, path: Path) -> None:
    model = pulling.add(name, path)
    print(f"{model.name}: {model.path}")


def run_remove(name: str) -> None:
    pulling.remove(name)
    print(f"{name}: removed")


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
