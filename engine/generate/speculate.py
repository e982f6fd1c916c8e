"""Guesses the next tokens from what the text has said before: prompt-lookup decoding (Saxena, 2023).

A guess costs a row of a decode program, which checks several positions at once; what the model would
not have drawn is thrown away, so the reply is the same with and without.
"""

from collections.abc import Iterable

_GRAM = 3
_PATIENCE = 12
"""Steps without a guess after guesses kept failing."""
_START, _KEEP, _WORTH = 1.0, 0.75, 0.3
"""A running mean of tokens gained by a guess, and from when it is worth the rows: a step of four rows
costs 1.3 steps of one."""


class NgramDrafter:
    """One sequence's tokens, and where each run of three was last seen. A plain object.

    >>> drafter = NgramDrafter([1, 2, 3, 4, 5, 1, 2, 3])
    >>> drafter.draft(2)
    [4, 5]
    """

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._gained = _START
        self._rest = 0
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        if len(self._tokens) >= _GRAM:
            self._after[tuple(self._tokens[-_GRAM:])] = len(self._tokens)
        self._tokens.append(token)

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none if nothing like it was said, or it did not pay."""
        if self._rest:
            self._rest -= 1
            return []
        at = self._after.get(tuple(self._tokens[-_GRAM:]))
        return [] if at is None else self._tokens[at : at + most]

    def judge(self, accepted: int) -> None:
        """Tells how many tokens of the last guess were right."""
        self._gained = _KEEP * self._gained + (1 - _KEEP) * accepted
        if self._gained < _WORTH:
            self._rest, self._gained = _PATIENCE, _WORTH
