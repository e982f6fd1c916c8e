"""Time of `make run` in a fresh clone to ready and to the first answer, cold and warm, and peak memory.

Clones HEAD into an empty folder with empty caches (pip's own stays unless --no-pip-cache), runs
`make run` there twice. Run: `python -m experiments.bench.startup`.
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

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--no-pip-cache", action="store_true")
    options = parser.parse_args()
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
