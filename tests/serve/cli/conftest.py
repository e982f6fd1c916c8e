"""Runs the real command in a process of its own, with its own data folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Tarsia = Callable[..., Ran]


@pytest.fixture
def tarsia(tmp_path: Path, smollm2_path: Path, minilm_path: Path) -> Tarsia:
    """`tarsia("ask", ...)` -> exit code, stdout, stderr. The data folder is `tmp_path / "data"`."""

    def run(*arguments: str | Path, stdin: str = "", environ: Mapping[str, str] | None = None) -> Ran:
        done = subprocess.run(
            [Path(sys.executable).with_name("tarsia"), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
            env={**os.environ, "TARSIA_DATA_DIR": str(tmp_path / "data"), **(environ or {})},
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
