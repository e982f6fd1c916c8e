"""The C++ of the `cpu` target, broken on purpose and run under sanitisers in a process of its own."""

import re
from dataclasses import dataclass

from dsl.lower.host.emit import emit
from tests.dsl.targets.cpu.programs import Program, right, sanitised

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


class Mutated:
    """A kernel's C++ with all its mistakes, compiled once; each run has one of them, or none."""

    def __init__(self, kernel, arrays, folder):
        text, self.mistakes = planted(emit(kernel))
        self.program = Program(kernel, arrays, folder, sanitised(), text)

    def survivors(self, expected):
        """The mistakes that nothing shows. Raises AssertionError when the sound program is not right."""
        sound = self.program.outputs()
        assert right(sound, expected), sound
        return [each for each in self.mistakes if right(self.program.outputs(each.number), expected)]
