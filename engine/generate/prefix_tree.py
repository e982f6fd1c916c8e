"""Which blocks hold the keys and values of which beginnings of prompts: a tree with a block a node.

A radix tree over whole blocks, as SGLang's (Zheng et al., 2024): the path from the root spells the
tokens, so a block is only found behind the very tokens it was computed after. Knows nothing of devices.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]


@dataclass(eq=False)
class _Node:
    tokens: Tokens
    block: int
    parent: "_Node | None"
    used: int = 0
    children: dict[Tokens, "_Node"] = field(default_factory=dict)


class PrefixTree:
    """Not thread-safe. Blocks are numbers; who may reuse one is the caller's business.

    >>> tree = PrefixTree(block=2)
    >>> tree.insert([1, 2, 3, 4], [7, 8])
    [7, 8]
    >>> tree.find([1, 2, 3, 5])
    [7]
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self._root = _Node((), -1, None)
        self._leaves: set[_Node] = set()
        self._clock = 0
        self._size = 0

    def __len__(self) -> int:
        """How many blocks the tree holds."""
        return self._size

    def find(self, tokens: Sequence[int]) -> list[int]:
        """The blocks of the longest known beginning of `tokens`, and marks them as just used."""
        return [node.block for node in self._walk(tokens)]

    def insert(self, tokens: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Takes in the `blocks` that hold `tokens`, whose number is a multiple of the block's size.

        Returns those that are new to the tree: where it has a block for the same tokens, it keeps that.
        """
        node, taken = self._root, []
        for key, block in zip(self._keys(tokens), blocks, strict=True):
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(key, block, node)
                self._leaves.discard(node)
                self._leaves.add(child)
                self._size += 1
                taken.append(block)
            self._touch(child)
            node = child
        return taken

    def evict(self, may: Callable[[int], bool]) -> int | None:
        """Drops the leaf that was used longest ago among those whose block `may` go; gives its block."""
        leaf = min((leaf for leaf in self._leaves if may(leaf.block)), key=_last_used, default=None)
        if leaf is None or leaf.parent is None:
            return None
        self._leaves.discard(leaf)
        del leaf.parent.children[leaf.tokens]
        if not leaf.parent.children and leaf.parent is not self._root:
            self._leaves.add(leaf.parent)
        self._size -= 1
        return leaf.block

    def evictable(self, may: Callable[[int], bool]) -> int:
        """How many blocks `evict` could give one after the other: those with nothing needed behind them."""
        nodes = self._nodes()
        needed: set[_Node] = set()
        # Children come after their parents in `nodes`.
        for node in reversed(nodes):
            if node in needed or not may(node.block):
                needed |= {node} if node.parent is None else {node, node.parent}
        return sum(node not in needed for node in nodes)

    def blocks(self) -> list[int]:
        """All blocks, in no particular order."""
        return [node.block for node in self._nodes()]

    def _nodes(self) -> list[_Node]:
        """All nodes but the root, parents before their children."""
        nodes = list(self._root.children.values())
        for node in nodes:
            nodes += node.children.values()
        return nodes

    def _walk(self, tokens: Sequence[int]) -> Iterator[_Node]:
        node: _Node | None = self._root
        for key in self._keys(tokens):
            node = node.children.get(key) if node else None
            if node is None:
                return
            self._touch(node)
            yield node

    def _touch(self, node: _Node) -> None:
        self._clock += 1
        node.used = self._clock

    def _keys(self, tokens: Sequence[int]) -> Iterator[Tokens]:
        size = self._block
        return (tuple(tokens[at : at + size]) for at in range(0, len(tokens) - size + 1, size))


def _last_used(node: _Node) -> int:
    return node.used
