"""The C++ of a kernel as a program of its own, which reads its inputs from files and writes its outputs."""

import math
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import dsl.lower.host as host
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.host.emit import emit
from dsl.targets.cpu.build import compiler

MAIN = r"""
#include <cstdio>
#include <cstdlib>
static void *filled(const char *path, long bytes) {
  void *data = malloc(bytes);
  FILE *file = fopen(path, "rb");
  if (!file || (long)fread(data, 1, bytes, file) != bytes) exit(3);
  fclose(file);
  return data;
}
int main(int, char **given) {
  mutant = atoi(given[1]);
  void *args[ARGUMENTS + 1], *results[RESULTS + 1];
  for (int i = 0; i < ARGUMENTS; i++) args[i] = filled(given[2 + i], in_bytes[i]);
  for (int i = 0; i < RESULTS; i++) results[i] = malloc(out_bytes[i]);
  prepare(args, results);
  char *scratch = (char *)aligned_alloc(64, (SCRATCH + 64) / 64 * 64);
  programs(args, results, scratch, 0, PROGRAMS);
  FILE *file = fopen(given[2 + ARGUMENTS], "wb");
  for (int i = 0; i < RESULTS; i++) fwrite(results[i], 1, out_bytes[i], file);
  fclose(file);
}
"""


@dataclass(frozen=True)
class Build:
    """A compiler with the flags that say for what, and the command that runs what it makes, if any."""

    compiler: str
    flags: tuple[str, ...]
    runner: tuple[str, ...] = ()


def sanitised() -> Build:
    """For this processor, and it ends at the first thing that AddressSanitizer or UBSan finds."""
    native = (flag for flag in compiler().flags if flag.startswith(("-march", "-mcpu")))
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    return Build(compiler().path, ("-O1", *checks, *native))


class Program:
    """A kernel's program with its inputs, compiled once; `mutant` is a global of `text` that it is told."""

    def __init__(self, kernel, arrays, folder, build, text=None):
        self.kernel, self.folder, self.build = kernel, Path(folder), build
        sizes = [
            f"static const long {name}_bytes[] = {{{', '.join(str(ref.nbytes) for ref in refs)}, 0}};"
            for name, refs in (("in", kernel.inputs), ("out", kernel.outputs))
        ]
        source = self.folder / "kernel.cc"
        head = 'static int mutant;\n#include "prelude.h"\n'
        source.write_text("\n".join([head, text or emit(kernel), *sizes, MAIN]))
        self.program = str(self.folder / "kernel")
        flags = ("-std=c++17", "-fwrapv", "-w", *build.flags, f"-I{Path(host.__file__).parent}")
        command = [build.compiler, *flags, str(source), "-o", self.program]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.inputs = []
        for number, array in enumerate(arrays):
            self.inputs.append(str(self.folder / f"in{number}"))
            Path(self.inputs[-1]).write_bytes(np.ascontiguousarray(array).tobytes())

    def outputs(self, number=0):
        """The outputs, or why there are none."""
        place = self.folder / "out"
        place.unlink(missing_ok=True)
        command = [*self.build.runner, self.program, str(number), *self.inputs, str(place)]
        try:
            environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
        except subprocess.TimeoutExpired:
            return "does not end"
        if done.returncode:
            told = re.search(r"AddressSanitizer: [\w-]+|runtime error: .*", done.stderr)
            return told[0] if told else f"exit status {done.returncode}"
        data, found = place.read_bytes(), []
        for ref in self.kernel.outputs:
            dtype = jnp.dtype(NUMPY_NAME[ref.dtype])
            found.append(np.frombuffer(data, dtype, math.prod(ref.shape)).reshape(ref.shape))
            data = data[ref.nbytes :]
        return found


def right(found, expected, tolerance=2e-4):
    """Whether outputs of a program are what is expected."""
    return not isinstance(found, str) and all(
        np.allclose(mine.astype(np.float64), theirs, rtol=tolerance, atol=tolerance)
        for mine, theirs in zip(found, expected, strict=True)
    )
