"""Finds stop strings in text that arrives in pieces, and holds back what may be the start of one."""

from collections.abc import Sequence


class StopMatcher:
    """Cuts one stream of text at the stop string that is complete first.

    However the text is cut into pieces, what comes out is the same. Each stop string is followed by
    its own Knuth-Morris-Pratt automaton, so the cost is linear in the text whatever the strings are.

    >>> matcher = StopMatcher(("</s>",))
    >>> matcher.push("one <"), matcher.push("/s> two"), matcher.stopped
    ('one ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._borders = tuple(_borders(stop) for stop in self._stops)
        self._matched = [0] * len(self._stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Text that is now certain to come before any stop string. Empty once `stopped`."""
        if self.stopped:
            return ""
        self._held += text
        first = len(self._held) - len(text)
        for index in range(first, len(self._held)):
            longest = self._advance(self._held[index])
            if longest:
                self.stopped = True
                safe, self._held = self._held[: index + 1 - longest], ""
                return safe
        keep = max(self._matched, default=0)
        safe, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return safe

    def flush(self) -> str:
        """What was held back, for the end of a stream that no stop string ended."""
        held, self._held = self._held, ""
        return held

    def _advance(self, char: str) -> int:
        """Feeds one character; gives the length of the longest stop string that ends here, or 0."""
        longest = 0
        for number, (stop, borders) in enumerate(zip(self._stops, self._borders, strict=True)):
            matched = self._matched[number]
            while matched and stop[matched] != char:
                matched = borders[matched - 1]
            matched += stop[matched] == char
            if matched == len(stop):
                longest, matched = max(longest, matched), borders[-1]
            self._matched[number] = matched
        return longest


def _borders(word: str) -> list[int]:
    """For each prefix, the length of its longest proper prefix that is also its suffix (KMP)."""
    borders = [0] * len(word)
    length = 0
    for index in range(1, len(word)):
        while length and word[index] != word[length]:
            length = borders[length - 1]
        length += word[index] == word[length]
        borders[index] = length
    return borders
