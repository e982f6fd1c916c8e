"""The house rules that a program can hold: imports point down, and nothing heavy happens on import."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("dsl", "engine", "stores", "serve")
ABOVE = {layer: set(LAYERS[index + 1 :]) for index, layer in enumerate(LAYERS)}
ALLOWED_IN_DSL = {"jax", "jaxlib", "numpy", "dsl"}


def imported_roots(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def sources(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_only_point_down(layer: str) -> None:
    upward = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(layer)
        for name in imported_roots(path)
        if name in ABOVE[layer] or name in {"tests", "experiments"}
    }
    assert upward == set()


def test_dsl_knows_only_jax_and_numpy() -> None:
    foreign = {
        name
        for path in sources("dsl")
        for name in imported_roots(path)
        if name not in ALLOWED_IN_DSL and name not in sys.stdlib_module_names
    }
    assert foreign == set()


@pytest.mark.parametrize("folder", [*LAYERS, "tests", "experiments", "examples"])
def test_each_top_level_folder_opens_with_a_readme_of_at_most_a_page(folder: str) -> None:
    lines = (ROOT / folder / "README.md").read_text().splitlines()
    assert 5 <= len(lines) <= 70


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def test_importing_the_engine_starts_no_device_no_thread_and_opens_no_file() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("engine")
        if path.name != "__main__.py" and "native" not in path.parts
    ]
    code = (
        "import importlib, json, threading, os, sys\n"
        "before = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else set()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "after = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else set()\n"
        "xla = sys.modules.get('jax._src.xla_bridge')\n"
        "print(json.dumps({'backends': sorted(xla._backends) if xla else [],\n"
        "  'threads': [t.name for t in threading.enumerate()][1:], 'files': len(after) - len(before)}))"
    )
    assert json.loads(python(code)) == {"backends": [], "threads": [], "files": 0}


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["ask", "--help"], ["version"]])
def test_help_imports_neither_jax_nor_starlette(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['tarsia', *{arguments!r}]\n"
        "from serve.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print('heavy:', sorted({'jax', 'starlette', 'numpy', 'openai'} & set(sys.modules)))"
    )
    assert python(code).splitlines()[-1] == "heavy: []"
