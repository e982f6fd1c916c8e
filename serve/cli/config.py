"""`tarsia config show`: each setting, its value, and where the value came from."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from serve.cli.output import print_json, print_table
from serve.config import Settings, load_settings


def run_show(config_file: Path | None, *, as_json: bool) -> None:
    loaded = load_settings(config_file=config_file)
    rows = [
        (f.name, getattr(loaded.settings, f.name), loaded.origins[f.name], f.metadata["help"])
        for f in fields(Settings)
    ]
    if as_json:
        print_json({name: {"value": _plain(value), "origin": origin} for name, value, origin, _ in rows})
        return
    print_table(
        ("setting", "value", "from", "what it is"),
        [(name, _shown(value), origin, text) for name, value, origin, text in rows],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return ", ".join(value) or "-" if isinstance(value, tuple) else str(value)
