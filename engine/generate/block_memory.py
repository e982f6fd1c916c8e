"""Who holds which block of the KV pool: references, the prefix tree, and what goes when memory is short.

A block is shared whole or not at all. Only blocks that are full of a prompt's tokens are shared, and a
sequence writes only into blocks that it alone holds: so nothing is ever copied, and a shared block
never changes.
"""

from collections.abc import Sequence

from engine.generate.prefix_tree import PrefixTree


class BlockMemory:
    """Blocks `first` to `first + count - 1` of `size` positions. A plain object; not thread-safe.

    >>> memory = BlockMemory(count=4, size=2)
    >>> table = memory.shared([1, 2, 3], limit=2)
    >>> memory.extend(table, tokens=3), len(table)
    (True, 2)
    >>> memory.publish([1, 2], table)
    >>> memory.release(table)
    >>> memory.shared([1, 2, 9], limit=2) == table[:1]
    True
    """

    def __init__(self, *, count: int, size: int, first: int = 1) -> None:
        self.count = count
        self.size = size
        self._free = list(range(first + count - 1, first - 1, -1))
        self._references = dict.fromkeys(range(first, first + count), 0)
        self._tree = PrefixTree(size)
        self._cached: set[int] = set()
        self.hit_tokens = 0
        self.evictions = 0

    @property
    def held(self) -> int:
        """Blocks that sequences hold."""
        return sum(count > (block in self._cached) for block, count in self._references.items())

    @property
    def cached(self) -> int:
        """Blocks that the prefix tree holds, whether sequences do so too or not."""
        return len(self._cached)

    @property
    def available(self) -> int:
        """Blocks that `extend` could hand out: free ones, and those that only the tree holds."""
        return len(self._free) + self._tree.evictable(self._only_cached)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.size)

    def shared(self, tokens: Sequence[int], limit: int) -> list[int]:
        """A table with the blocks known for the beginning of `tokens`, at most `limit` tokens of it.

        The caller now holds them.
        """
        table = self._tree.find(tokens[:limit])
        for block in table:
            self._references[block] += 1
        return table

    def known(self, tokens: Sequence[int], limit: int) -> int:
        """How many tokens `shared` would give blocks for."""
        return len(self._tree.find(tokens[:limit])) * self.size

    def trim(self, table: list[int], tokens: int) -> None:
        """Gives back the blocks of `table` beyond its first `tokens` positions."""
        keep = self.blocks_for(tokens)
        self._drop(table[keep:])
        del table[keep:]

    def extend(self, table: list[int], tokens: int) -> bool:
        """Adds blocks until `table` holds `tokens` positions; takes none and says False if it cannot.

        Blocks that only the tree holds are evicted for it, those used longest ago first.
        """
        missing = self.blocks_for(tokens) - len(table)
        if missing > len(self._free) and missing > self.available:
            return False
        for _ in range(missing):
            block = self._free.pop() if self._free else self._evict()
            self._references[block] = 1
            table.append(block)
        return True

    def publish(self, tokens: Sequence[int], table: Sequence[int]) -> None:
        """Lets others share the blocks that are full of `tokens`, the beginning of what `table` holds."""
        full = len(tokens) // self.size
        for block in self._tree.insert(tokens[: full * self.size], table[:full]):
            self._references[block] += 1
            self._cached.add(block)

    def release(self, table: list[int]) -> None:
        """The caller no longer holds any block of `table`, which is emptied."""
        self._drop(table)
        table.clear()

    def clear(self) -> None:
        """Forgets what the tree knows: the device lost it. Tables stay whose they are."""
        while self._tree:
            self._forget(self._tree.evict(lambda block: True))

    def check(self, tables: Sequence[Sequence[int]]) -> None:
        """Raises AssertionError unless exactly `tables` and the tree hold blocks, each counted right."""
        held = dict.fromkeys(self._references, 0)
        for block in (*self._tree.blocks(), *(block for table in tables for block in table)):
            held[block] += 1
        if held != self._references:
            raise AssertionError(f"references are {self._references}, holders {held}")
        if sorted(self._free) != sorted(block for block, count in held.items() if not count):
            raise AssertionError(f"free are {sorted(self._free)}, holders {held}")
        if sorted(self._tree.blocks()) != sorted(self._cached):
            raise AssertionError("the tree holds other blocks than are marked so")

    def _only_cached(self, block: int) -> bool:
        return self._references[block] == 1

    def _evict(self) -> int:
        block = self._tree.evict(self._only_cached)
        self.evictions += 1
        self._forget(block)
        return self._free.pop()

    def _forget(self, block: int | None) -> None:
        if block is None:
            raise RuntimeError("the prefix tree has no block to give up")
        self._cached.discard(block)
        self._drop([block])

    def _drop(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._references[block] -= 1
            if not self._references[block]:
                self._free.append(block)
