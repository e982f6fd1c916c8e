"""Time to a first token in a fresh process, and of `make run` in a fresh clone to ready and to an answer.

The first token: SmolLM2 135M loaded and asked in a new process each time, from before Python starts, with
caches as the first one leaves them; wall time, which neighbours disturb, and CPU time of all threads.
Then HEAD is cloned into an empty folder with empty caches (pip's own stays unless --no-pip-cache) and
`make run` runs there twice: cold and warm, with peak memory.
Run: `python -m experiments.bench.startup [--first-token]`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from experiments.bench.measure import Span, machine, median

ROOT = Path(__file__).parent.parent.parent
FIRST_TOKEN = """
import sys, time
from engine import Engine

engine = Engine.load("smollm2-135m-instruct")
if "warm" in sys.argv:
    engine.warm()
next(engine.chat([{"role": "user", "content": "Hi"}], stream=True, temperature=0, max_tokens=8))
print(time.process_time(), flush=True)
engine.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--no-pip-cache", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="of the first token; one more warms the caches")
    parser.add_argument("--first-token", action="store_true", help="only that, not `make run`")
    options = parser.parse_args()
    report_first_tokens(options.rounds)
    if not options.first_token:
        report_make_run(options)


def report_first_tokens(rounds: int) -> None:
    starts = {
        "first token": lambda: first_token(),
        "all programs loaded, then first token": lambda: first_token("warm"),
    }
    for start in starts.values():
        start()
    spans: dict[str, list[Span]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            spans[name].append(start())
    for name, runs in spans.items():
        middle, least = median(runs), min(span.wall for span in runs)
        told = f"{middle.wall:.2f} s (least {least:.2f} s), CPU {middle.cpu:.2f} s"
        print(f"startup: {name}: {told}; {machine()}", flush=True)


def first_token(*arguments: str) -> Span:
    """Of a new process, from before it starts; CPU time is that of the process alone."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_TOKEN, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        cpu = float(process.stdout.readline())
        return Span(time.monotonic() - started, cpu)


def report_make_run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environ = {
            **os.environ,
            "HOME": scratch,
            "XDG_CACHE_HOME": f"{scratch}/cache",
            "XDG_DATA_HOME": f"{scratch}/data",
        }
        for name in [n for n in environ if n.startswith(("TARSIA_", "JAX_"))]:
            del environ[name]
        if not options.no_pip_cache:
            environ["PIP_CACHE_DIR"] = pip_cache()
        for label in ("cold", "warm"):
            ready, answered, memory = run_once(clone, environ, options.port)
            print(
                f"startup: {label}: ready after {ready:.1f} s, first answer after {answered:.1f} s, "
                f"server's peak memory {memory:.0f} MB",
                flush=True,
            )


def run_once(clone: Path, environ: dict[str, str], port: int) -> tuple[float, float, float]:
    """Seconds to ready and to the answer, and MB of the server, of one `make run`."""
    started = time.monotonic()
    process = subprocess.Popen(
        ["make", "run", f"PORT={port}", f"PYTHON={sys.executable}"],
        cwd=clone,
        env=environ,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    ready = answered = memory = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("== ready"):
            ready = time.monotonic() - started
        if line.strip().startswith("Answer"):
            answered = time.monotonic() - started
        if "Ctrl-C stops it" in line:
            memory = max(
                (peak_mb(child) for child in psutil.Process(process.pid).children(recursive=True)),
                default=0.0,
            )
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    return ready, answered, memory


def peak_mb(process: psutil.Process) -> float:
    """The largest resident size so far, where the kernel tells it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0
    )


def pip_cache() -> str:
    done = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
