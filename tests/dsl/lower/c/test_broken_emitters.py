"""Each rule of the GPU emitter broken on purpose: what it then writes is found wrong by the simulator."""

import ast
import random
from pathlib import Path

import pytest

from dsl.lower.c import emit, exchange, layout, shared, windows
from tests.dsl.lower.c.broken_emitters import verdict
from tests.dsl.passes.mutator import Mutant

RULES = {
    "upper guards": (windows, "high is None or high + size > extent", "False"),
    "lower guards": (windows, "low is None or low < 0 else []", "False else []"),
    "guards of slots past the tile": (windows, 'return [f"{coordinate} < {entry.size}"]', "return []"),
    "owners of what threads hold alike": (windows, "if write:", "if False:"),
    "owners when staging": (exchange, "owner = self.layout.owner(tile.shape)", "owner = []"),
    "owners of columns over warps": (exchange, 'owner = "if (lane == 0) " if', 'owner = "" if'),
    "which row": (layout, 'f"(warp + {self.row_unit} * {i})"', 'f"(warp + {i})"'),
    "which column": (layout, 'f"(lane + {self.column_unit} * {j})"', 'f"(lane + {j})"'),
    "lanes of a row": (layout, "(16, 8, 4, 2, 1)", "(16, 8, 4, 2)"),
    "folds end with the tile": (exchange, "if self.layout.overhangs(op.axis, operand.shape):", "if False:"),
    "warps join once": (exchange, "needs_exchange(op, self.layout)", "False"),
    "carries that change places": (emit, "if sources[position] in own and", "if False and"),
    "a barrier before a region is written again": (shared, "due = self.turn in self.pending", "due = False"),
    "a barrier before a region is read": (
        exchange,
        "self.lines.add(self.dialect.barrier)\n        self.pool.published()",
        "self.pool.published()",
    ),
    "what a pass leaves unread": (emit, "if repeats and not after <= before:", "if False:"),
    "the last chunk is shorter": (exchange, "count = min(chunk, depth - first)", "count = chunk"),
    "chunks follow each other": (exchange, "skipped = first // unit", "skipped = 0"),
    "transposed operands": (exchange, 'f"{column} * {right[1]} + k" if op.transpose_b else', "None or"),
    "places in the grid": (emit, 'f"{divided} % {extent}"', "divided"),
    "passes that max_trip cuts": (emit, '"" if op.max_trip is None else', '"" if True else'),
    "bytes of nibbles": (windows, 'f"nibble_byte({positions[-1]})" if', "positions[-1] if"),
}
"""What a rule is about, where it stands, and what breaks it."""
STATED = {name: rule for name, rule in RULES.items() if rule[1] in Path(rule[0].__file__).read_text()}
SAMPLE = random.Random(4).sample(sorted(RULES), 5)


def broken(name):
    module, old, new = RULES[name]
    source = Path(module.__file__).read_text()
    return Mutant(module, 0, old, new, ast.parse(source.replace(old, new)))


def told(name):
    if name not in STATED:
        pytest.skip("the rule is written otherwise now")
    return verdict(broken(name))


def test_most_rules_stand_where_they_are_looked_for():
    assert len(STATED) >= 15, sorted(set(RULES) - set(STATED))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_broken_rule_shows(name):
    assert told(name) not in (None, "says the same")


@pytest.mark.soak
@pytest.mark.parametrize("name", RULES)
def test_every_broken_rule_shows(name):
    assert told(name) not in (None, "says the same")
