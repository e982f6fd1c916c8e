"""Runs every benchmark of the README, one process each: `python -m experiments.bench [NAME...]`."""

import subprocess
import sys

BENCHMARKS = (
    *("chat", "decode", "prefill", "goodput", "generation", "fidelity", "agreement"),
    *("embed", "vision", "qa", "store", "ann", "ann_busy", "ann_small", "databases", "flat"),
    *("startup", "dsl"),
)


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = [
        name
        for name in names
        if subprocess.run([sys.executable, "-m", f"experiments.bench.{name}"]).returncode != 0
    ]
    for name in failed:
        print(f"{name}: failed", file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
