"""Blocks and the prefix tree against a plain model: what is found was published, and nothing leaks."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.generate.block_memory import BlockMemory
from engine.generate.prefix_tree import PrefixTree

SIZE, COUNT = 2, 9
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=10)


class Memory(RuleBasedStateMachine):
    """Sequences that come with tokens, grow, publish what they hold, and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = BlockMemory(count=COUNT, size=SIZE)
        self.held: list[tuple[list[int], list[int]]] = []
        self.content: dict[int, tuple[int, ...]] = {}

    @rule(tokens=TOKENS)
    def come(self, tokens: list[int]) -> None:
        table = self.memory.shared(tokens, len(tokens) - len(tokens) % SIZE)
        for at, block in enumerate(table):
            assert self.content[block] == tuple(tokens[: (at + 1) * SIZE]), "a block of other tokens"
        before, room = len(table), self.memory.available
        if not self.memory.extend(table, len(tokens)):
            assert self.memory.blocks_for(len(tokens)) - before > room
            self.memory.release(table)
            return
        for at in range(before, len(table)):
            self.content[table[at]] = tuple(tokens[: (at + 1) * SIZE])
        self.held.append((tokens, table))

    @rule(number=st.integers(0, 99), more=st.integers(1, 4))
    def grow(self, number: int, more: int) -> None:
        if self.held:
            _, table = self.held[number % len(self.held)]
            before = list(table)
            if self.memory.extend(table, len(table) * SIZE + more):
                assert table[: len(before)] == before
                for block in table[len(before) :]:
                    self.content[block] = (-1,)
            else:
                assert table == before

    @rule(number=st.integers(0, 99))
    def publish(self, number: int) -> None:
        if self.held:
            tokens, table = self.held[number % len(self.held)]
            full = len(tokens) - len(tokens) % SIZE
            self.memory.publish(tokens[:full], table)
            assert self.memory.known(tokens, full) == full

    @rule(number=st.integers(0, 99))
    def leave(self, number: int) -> None:
        if self.held:
            _, table = self.held.pop(number % len(self.held))
            self.memory.release(table)
            assert table == []

    @rule()
    def forget(self) -> None:
        self.memory.clear()
        assert self.memory.cached == 0

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        self.memory.check([table for _, table in self.held])
        assert self.memory.held == len({block for _, table in self.held for block in table})


Memory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMemory = Memory.TestCase


def test_what_was_used_longest_ago_goes_first():
    tree = PrefixTree(block=1)
    for block, tokens in enumerate([[1], [2], [3]]):
        tree.insert(tokens, [block])
    tree.find([1])
    assert [tree.evict(lambda block: True) for _ in range(4)] == [1, 2, 0, None]


def test_what_others_stand_on_stays_while_they_do():
    tree = PrefixTree(block=1)
    tree.insert([1, 2, 3], [7, 8, 9])
    assert tree.evictable(lambda block: block != 8) == 1
    assert [tree.evict(lambda block: block != 8) for _ in range(2)] == [9, None]
    assert tree.evictable(lambda block: True) == len(tree) == 2


def test_a_block_for_tokens_that_are_known_is_not_taken():
    tree = PrefixTree(block=2)
    assert tree.insert([1, 2, 3, 4], [5, 6]) == [5, 6]
    assert tree.insert([1, 2, 3, 9], [7, 8]) == [8]
    assert tree.find([1, 2, 3, 9, 0]) == [5, 8]


def test_an_account_that_does_not_add_up_is_noticed():
    memory = BlockMemory(count=2, size=2)
    table: list[int] = []
    memory.extend(table, 2)
    with pytest.raises(AssertionError, match="holders"):
        memory.check([])
