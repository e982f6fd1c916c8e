"""`tarsia doctor`: what is here, what is missing, and the command that adds it."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.registry import KNOWN_MODELS, cache_dir, installed_models, models_dir
from serve.cli.output import print_json, print_table
from serve.config import load_settings

PACKAGES = (
    "tarsia",
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "tokenizers",
    "starlette",
    "uvicorn",
    "pypdf",
    "selectolax",
)


def run(config_file: Path | None, *, as_json: bool) -> None:
    report = _report(config_file)
    if as_json:
        print_json(report)
        return
    rows = [(key, str(value)) for key, value in report["machine"].items()]
    rows += [(f"package {name}", found) for name, found in report["packages"].items()]
    rows += [(f"device {index}", text) for index, text in enumerate(report["devices"])]
    rows += [(f"model {name}", state) for name, state in report["models"].items()]
    rows += [(f"folder {name}", text) for name, text in report["folders"].items()]
    rows += [("advice", line) for line in report["advice"]]
    print_table(("what", "found"), rows)


def _report(config_file: Path | None) -> dict[str, Any]:
    settings = load_settings(config_file=config_file).settings
    installed = {model.name for model in installed_models()}
    states = {
        model.alias: "installed" if model.alias in installed else "not installed" for model in KNOWN_MODELS
    }
    states |= dict.fromkeys(installed - states.keys(), "added by you")
    return {
        "machine": _machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "models": states,
        "folders": {
            "data": _folder(settings.data_dir),
            "models": _folder(models_dir()),
            "cache": _folder(cache_dir()),
        },
        "advice": [
            f"`tarsia models pull {model.alias}` brings the {model.kind} model"
            for model in KNOWN_MODELS
            if model.default and model.alias not in installed
        ],
    }


def _machine() -> dict[str, str]:
    import psutil

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(psutil.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
    }


def _devices() -> list[str]:
    import jax

    return [f"{device.platform}: {device.device_kind}" for device in jax.devices()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _folder(path: Path) -> str:
    if not path.exists():
        return f"{path} (not made yet)"
    return f"{path} ({shutil.disk_usage(path).free / 2**30:.1f} GiB free)"
