"""The C++ of the `cpu` target, broken on purpose and run under AddressSanitizer in a process of its own."""

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
_VALUE = r"(?:[a-z]\d+(?:\[[\w *+]+\])?|\(-?0x[\w.+-]+f\)|\d+)"
RULES = {
    "operands swapped": (rf"\(({_VALUE}) ([-/]|<|>=) (?!\d+\))({_VALUE})\)", "{3} {2} {1}"),
    "choice swapped": (rf"\(({_VALUE}) \? ({_VALUE}) : ({_VALUE})\)", "{1} ? {3} : {2}"),
    "arguments swapped": (r"\b(idiv|mod|shr)\((\w+), (\w+)\)", "{1}({3}, {2})"),
}


@dataclass(frozen=True)
class Broken:
    """One mistake, chosen by its number when the program runs."""

    number: int
    what: str
    line: str


def planted(source):
    """(the text with all mistakes behind numbers, the mistakes)."""
    found = []
    for what, (pattern, after) in RULES.items():
        for match in re.finditer(pattern, source):
            found.append((match.start(), match.end(), f"({after.format(match[0], *match.groups())})", what))
    listed, text, last = [], "", 0
    for start, end, after, what in sorted(found):
        if start < last or source.rfind("INLINE void", 0, start) < 0:
            continue  # within a place that is taken, or before the kernel
        line = source[source.rfind("\n", 0, start) + 1 : source.find("\n", end)].strip()
        listed.append(Broken(len(listed) + 1, what, line))
        text += f"{source[last:start]}(mutant == {len(listed)} ? {after} : {source[start:end]})"
        last = end
    return text + source[last:], listed


class Sanitised:
    """A kernel's C++ with all its mistakes, compiled once; `outputs` runs it with one of them, or none."""

    def __init__(self, kernel, arrays, folder):
        self.kernel, self.folder = kernel, Path(folder)
        text, self.mistakes = planted(emit(kernel))
        sizes = [
            f"static const long {name}_bytes[] = {{{', '.join(str(ref.nbytes) for ref in refs)}, 0}};"
            for name, refs in (("in", kernel.inputs), ("out", kernel.outputs))
        ]
        source = self.folder / "kernel.cc"
        head = 'static int mutant;\n#include "prelude.h"\n'
        source.write_text("\n".join([head, text, *sizes, MAIN]))
        self.program = str(self.folder / "kernel")
        flags = ("-std=c++17", "-O1", "-fsanitize=address,undefined", "-fwrapv", "-w", *native())
        include = f"-I{Path(host.__file__).parent}"
        command = [compiler().path, *flags, include, str(source), "-o", self.program]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self.inputs = []
        for number, array in enumerate(arrays):
            self.inputs.append(str(self.folder / f"in{number}"))
            Path(self.inputs[-1]).write_bytes(np.ascontiguousarray(array).tobytes())

    def outputs(self, number):
        """The outputs, or why there are none."""
        place = self.folder / "out"
        place.unlink(missing_ok=True)
        command = [self.program, str(number), *self.inputs, str(place)]
        try:
            environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
        except subprocess.TimeoutExpired:
            return "does not end"
        if done.returncode:
            told = re.search(r"AddressSanitizer: ([\w-]+)", done.stderr)
            return told[1] if told else f"exit status {done.returncode}"
        data, found = place.read_bytes(), []
        for ref in self.kernel.outputs:
            dtype = jnp.dtype(NUMPY_NAME[ref.dtype])
            found.append(np.frombuffer(data, dtype, math.prod(ref.shape)).reshape(ref.shape))
            data = data[ref.nbytes :]
        return found

    def survivors(self, expected, tolerance=2e-4):
        """The mistakes that nothing shows. Raises AssertionError when the sound program is not right."""

        def right(found):
            return not isinstance(found, str) and all(
                np.allclose(mine.astype(np.float64), theirs, rtol=tolerance, atol=tolerance)
                for mine, theirs in zip(found, expected, strict=True)
            )

        assert right(self.outputs(0)), self.outputs(0)
        return [each for each in self.mistakes if right(self.outputs(each.number))]


def native():
    return [flag for flag in compiler().flags if flag.startswith(("-march", "-mcpu"))]
