"""Real texts that most Linux machines have: summaries of packages, and sentences of manuals and docstrings.

`vectors(count)` embeds them with MiniLM once and keeps the result in the user's cache folder. Data sets of
`experiments.bench.ann` are made here: the texts, GloVe from a package, and synthetic clusters.
Run: `python -m experiments.bench.real_texts [--count N]` to make the vectors beforehand.
"""

import argparse
import ast
import gzip
import random
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import platformdirs

MODEL = "all-minilm-l6-v2"
LEAST_CHARS, MOST_CHARS = 25, 200
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ROFF = re.compile(r"\\f\[?\w+\]?|\\[-&|^%]|\\\(\w\w|\\")


def texts(count: int) -> list[str]:
    """`count` different texts in a random order that is the same each time. ValueError if there are fewer."""
    found: set[str] = set()
    for source in (package_summaries, manuals, docstrings):
        for text in source():
            text = " ".join(text.split())
            if LEAST_CHARS <= len(text) <= MOST_CHARS:
                found.add(text)
        if len(found) >= 2 * count:
            break
    if len(found) < count:
        raise ValueError(f"this machine has {len(found)} texts, {count} are wanted: take a smaller --count")
    ordered = sorted(found)
    random.Random(0).shuffle(ordered)
    return ordered[:count]


def package_summaries() -> Iterator[str]:
    """One line about each package that the system's package lists know (Debian and its kin)."""
    if not shutil.which("apt-cache"):
        return
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        if line.startswith("Description: "):
            yield line.removeprefix("Description: ")


def manuals() -> Iterator[str]:
    """Sentences of the system's manual pages."""
    for path in sorted(Path("/usr/share/man").glob("man[1-9]/*.gz")):
        if path.is_symlink():
            continue
        lines: list[str] = []
        for line in gzip.decompress(path.read_bytes()).decode("utf-8", "replace").splitlines():
            if line.startswith((".", "'")):
                yield from sentences(" ".join(lines))
                lines = []
            else:
                lines.append(_ROFF.sub("", line))
        yield from sentences(" ".join(lines))


def docstrings() -> Iterator[str]:
    """Sentences of the docstrings of Python's own library and of what is installed beside it."""
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, RecursionError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                    yield from sentences(ast.get_docstring(node) or "")


def sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(text):
        if sum(char.isalpha() or char.isspace() for char in sentence) > 0.85 * len(sentence):
            yield sentence


def vectors(count: int) -> np.ndarray:
    """float32 (count, 384): MiniLM's embeddings of `texts(count)`, of unit length, in a random order."""
    kept = Path(platformdirs.user_cache_dir("tarsia")) / "bench" / f"texts-{count}.npy"
    if not kept.exists():
        from engine import Engine

        wanted = texts(count)
        model = Engine.load(MODEL)
        made = np.empty((count, model.embedder.dim), np.float32)
        for start in range(0, count, 2048):
            made[start : start + 2048] = model.embedder.embed(wanted[start : start + 2048])
            print(f"\r  embedding {min(count, start + 2048)} of {count} texts", end="", file=sys.stderr)
        print(file=sys.stderr)
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".tmp.npy")
        np.save(unfinished, made)
        unfinished.rename(kept)
    return np.load(kept, mmap_mode="r")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=101_000)
    print(vectors(parser.parse_args().count).shape)
