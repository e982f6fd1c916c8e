"""Each rule of the GPU emitter broken on purpose: what it then writes is found wrong by the simulator."""

import ast
import random
from pathlib import Path

import pytest

from dsl.lower.c import (
    dots,
    emission,
    emit,
    layout,
    matrix,
    placement,
    prefetch,
    reductions,
    shared,
    sums,
    vectors,
    windows,
)
from tests.dsl.lower.c.broken_emitters import verdict
from tests.dsl.passes.mutator import Mutant

RULES = {
    "upper guards": (windows, "high is None or high + size > extent", "False"),
    "lower guards": (windows, "low is None or low < 0 else []", "False else []"),
    "guards of slots past the tile": (windows, 'return [f"{coordinate} < {entry.size}"]', "return []"),
    "owners of what threads hold alike": (windows, "if write:", "if False:"),
    "bytes of nibbles": (windows, 'f"nibble_byte({positions[-1]})" if', "positions[-1] if"),
    "owners when staging": (dots, "owner = self.layout.owner(tile.shape)", "owner = []"),
    "the last chunk is shorter": (dots, "count = min(chunk, depth - first)", "count = chunk"),
    "chunks follow each other": (dots, "skipped = first // along.unit", "skipped = 0"),
    "transposed operands": (dots, 'f"{column} * {right[1]} + k" if op.transpose_b else', "None or"),
    "which rows of a column are summed": (reductions, "for mask in self.layout.row_masks", "for mask in ()"),
    "folds end with the tile": (
        reductions,
        "if self.layout.overhangs(op.axis, operand.shape):",
        "if False:",
    ),
    "warps join once": (reductions, "needs_exchange(op, self.layout)", "False"),
    "owners of columns over warps": (reductions, 'if "warp" not in test]', "if False]"),
    "places of warps in a column": (reductions, "{warp} * {width} +", "0 * {width} +"),
    "places of warps in a row": (reductions, "* {self.layout.warps} + {warp}]", "* {self.layout.warps}]"),
    "which row": (layout, 'terms = [_times(self.warp, "warp"),', "terms = ["),
    "which column": (layout, "across.bit_length() - 1", "across.bit_length() - 2"),
    "rows of lanes": (layout, "(b, 1 << (b - bits))", "(b, 2 << (b - bits))"),
    "lanes of a row": (layout, "reversed(self.columns.lanes)", "self.columns.lanes[1:]"),
    "lanes of a column": (layout, "reversed(self.rows.lanes)", "self.rows.lanes[1:]"),
    "one owner among warps": (layout, "if self.warps > 1 and any(", "if False and any("),
    "one owner among lanes": (layout, "if mask else []", "if False else []"),
    "rows of mma's fragments": (layout, "((2, 1), (3, 2), (4, 4))", "((2, 1), (3, 2), (4, 2))"),
    "columns of mma's fragments": (layout, "((0, 2), (1, 4)), (", "((0, 4), (1, 2)), ("),
    "rows of simdgroup matrices": (layout, "((1, 1), (2, 2), (4, 4))", "((1, 2), (2, 1), (4, 4))"),
    "columns of simdgroup matrices": (layout, "((0, 2), (3, 4)), (", "((0, 4), (3, 2)), ("),
    "blocks of rows in a fragment": (layout, "Axis(blocks, 8,", "Axis(blocks, 4,"),
    "rows of a warp": (layout, "unit.rows * warps, unit.rows,", "unit.rows * warps, 8,"),
    "places of runs at once": (layout, "stride=old.stride * width", "stride=old.stride"),
    "aligned runs": (vectors, "all(part % run == 0 for part in parts)", "True"),
    "starts of runs": (vectors, "*start.terms.values(), ", ""),
    "how much goes at once": (vectors, "min(layout.columns.run, VECTOR_BYTES * 8 //", "min(99, 256 //"),
    "tiles that end in zeros": (vectors, "if whole or facts.window_inside(ref, entry, axis)", "if True"),
    "carries that change places": (emit, "if sources[position] in own and", "if False and"),
    "what a pass leaves unread": (emit, "if repeats and not after <= before:", "if False:"),
    "places in the grid": (emit, 'f"{divided} % {extent}"', "divided"),
    "passes that max_trip cuts": (emit, '"" if op.max_trip is None else', '"" if True else'),
    "slots of runs that are read": (
        emit,
        'scaled(slot[1], width)}]"\n            return',
        'slot[1]}]"\n            return',
    ),
    "what a dot begins with": (emit, "self._copied(added.start) if added", 'lambda s: "0.0f" if added'),
    "no reading of sums before they are made": (sums, "if other.id in before.get(dot.id, ())", "if True"),
    "sums of one use": (sums, "and uses.get(op.result.id) == 1", ""),
    "a barrier before a region is written again": (shared, "due = self.turn in self.pending", "due = False"),
    "regions taken in turn": (shared, "return self.turn * self.plan.region, due", "return 0, due"),
    "a barrier before a region is read": (
        emission,
        "self.lines.add(self.dialect.barrier)\n        self.pool.published()",
        "self.pool.published()",
    ),
    "chunks begin at a slot": (
        shared,
        "max(LANES, placement.main.columns.unit, left.unit, right.unit)",
        "8",
    ),
    "rows that a chunk covers": (shared, "max(least[0], padded[0])", "8"),
    "columns that a chunk covers": (shared, "max(least[1], padded[1]) +", "least[1] // 2 +"),
    "halves of a float": (shared, "else end // 2", "else end // 4"),
    "whole words of regions": (shared, "(4 if tile.dtype", "(1 if tile.dtype"),
    "aligned rows": (shared, 'tile.dtype == "f32" else 8', 'tile.dtype == "f32" else 7'),
    "both operands have room": (shared, "left.end if left else 0", "0"),
    "offsets of halves": (matrix, "self.emission.enter() * in_float", "self.emission.enter()"),
    "chunks of the unit follow each other": (matrix, "skipped = chunk.first // along.unit", "skipped = 0"),
    "the last chunk of the unit is shorter": (matrix, "count = min(size, depth - first)", "count = size"),
    "zeros in the last step": (matrix, "if first >= chunk.steps * self.unit.depth:", "if True:"),
    "zeros behind a chunk": (
        matrix,
        "kept = _kept(axis, row, column, chunk.count, run) if cut",
        'kept = "" if cut',
    ),
    "zeros behind a row's runs": (matrix, '{count} - {column}"', '{count + 1} - {column}"'),
    "zeros of the left operand": (matrix, "if self.whole:", "if True:"),
    "chunks of the left operand": (matrix, "before + offset)", "offset)"),
    "which warps multiply": (
        matrix,
        "last = (op.result.shape[0] - 1)",
        "last = (op.result.shape[0] // 2 - 1)",
    ),
    "rows of ldmatrix": (matrix, '"(lane & 15)"', '"(lane & 7)"'),
    "columns of ldmatrix": (matrix, '"8 * (lane >> 4)", ', '"8 * (lane >> 3 & 1)", '),
    "rows of ldmatrix, transposed": (matrix, "(lane & 7) + 8 * (lane >> 4)", "(lane & 7)"),
    "columns of ldmatrix, transposed": (matrix, '8 * (lane >> 3 & 1)")', '8 * (lane >> 4)")'),
    "ldmatrix that transposes": (matrix, 'place = "transposed",', 'place = "matrices",'),
    "rows of a staged left operand": (matrix, "for bit in range(4)), 16, 1)", "for bit in range(3)), 16, 1)"),
    "columns of a staged left operand": (
        matrix,
        '"16 * k + 8 * (lane >> 4)")\n        return f"load_matrices(a',
        '"16 * k")\n        return f"load_matrices(a',
    ),
    "elements of Apple's staged left operand": (matrix, 'f"2 * k + {e}"', '"2 * k"'),
    "halves of a fragment": (matrix, "b[{2 * half}], b[{2 * half + 1}]", "b[{2 * half + 1}], b[{2 * half}]"),
    "places of sums": (matrix, "2 * half + e)}]", "e)}]"),
    "quarters of the left fragment": (matrix, "number // 2 * 2 + e", "number % 2 * 2 + e"),
    "rows of the left fragment": (matrix, "scaled(i, 2), number % 2)", "scaled(i, 2), number // 2)"),
    "Apple's right operand, transposed": (
        matrix,
        "(outer, inner) if self.op.transpose_b else (inner, outer)",
        "(inner, outer)",
    ),
    "elements of Apple's right operand": (matrix, '2 * j + {e}")', '2 * j")'),
    "spread operands lead to dots alone": (
        placement,
        "return all(_keeps(op, layout, found, main)",
        "return True or all(_keeps(op, layout, found, main)",
    ),
    "no pass is loaded that is not there": (emit, '"{" if sure else', '"{" if True else'),
    "the next pass is loaded": (emit, "const int next = {number};", "const int next = 0;"),
    "registers are free after the last dot": (prefetch, "last = op.result.id", "last = last or op.result.id"),
    "places that a pass finds out are not early": (prefetch, "if each in carries:", "if False:"),
    "groups of programs": (emit, "{group} + block % {group}", "{group} + block / {group} % {group}"),
    "which warp of a long row": (
        layout,
        "across, run * LANES, lanes, unit=across",
        "across, run, lanes, unit=across",
    ),
}
"""What a rule is about, where it stands, and what breaks it."""
SAMPLE = random.Random(4).sample(sorted(RULES), 7)


def told(name):
    module, old, new = RULES[name]
    source = Path(module.__file__).read_text()
    assert source.count(old) >= 1, "the rule is written otherwise now"
    return verdict(Mutant(module, 0, old, new, ast.parse(source.replace(old, new))))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_stands_where_it_is_broken(name):
    module, old, _ = RULES[name]
    assert old in Path(module.__file__).read_text()


@pytest.mark.parametrize("name", SAMPLE)
def test_a_broken_rule_shows(name):
    assert told(name) not in (None, "says the same")


@pytest.mark.soak
@pytest.mark.parametrize("name", RULES)
def test_every_broken_rule_shows(name):
    assert told(name) not in (None, "says the same")
