"""Which rows of a view a filter lets through; remembered for segments, which never change."""

import json
from collections import OrderedDict
from threading import Lock

import numpy as np

from stores.query.filters import Filter, compile_filter
from stores.segment.columns import Bools
from stores.segment.view import View

_MOST_BYTES = 32 << 20


class Masks:
    """Answers of filters over one segment's rows, the least recently used forgotten. Thread-safe."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._lock = Lock()
        self._known: OrderedDict[str, Bools] = OrderedDict()

    def get(self, key: str) -> Bools | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: str, mask: Bools) -> None:
        mask.setflags(write=False)
        with self._lock:
            before = self._known.pop(key, None)
            self._bytes += mask.nbytes - (before.nbytes if before is not None else 0)
            self._known[key] = mask
            while self._bytes > self._most:
                self._bytes -= self._known.popitem(last=False)[1].nbytes


def allowed_rows(view: View, filter: Filter | None) -> list[Bools]:
    """For each part, the living rows that the filter lets through. InvalidQuery for a bad filter."""
    if filter is None:
        return [part.alive for part in view]
    test = compile_filter(filter)
    key = _key(filter)
    found = []
    for part in view:
        masks = part.rows.masks
        known = masks.get(key) if masks is not None and key is not None else None
        if known is None:
            known = test(part.rows)
            if masks is not None and key is not None:
                masks.put(key, known)
        found.append(part.alive & known)
    return found


def _key(filter: Filter) -> str | None:
    """The same for filters that are alike, different for all others; None for what JSON cannot say."""
    try:
        return json.dumps(filter, sort_keys=True, allow_nan=True)
    except (TypeError, ValueError):
        return None


def count_rows(view: View, filter: Filter | None) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in allowed_rows(view, filter))
