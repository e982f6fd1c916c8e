"""BM25 over the texts of a view. Robertson and Zaragoza 2009, with Lucene's never-negative idf.

Exact over what is alive now: document frequencies and lengths are summed over all parts without
the dead, so neither segments nor deletions change a score.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stores.query.postings import Posting, words
from stores.segment.view import Part

K1 = 1.2
B = 0.75
Float64 = NDArray[np.float64]


def text_scores(parts: Sequence[Part], query: str) -> list[Float64]:
    """One array (rows,) per part: 0 where no word of the query occurs, and for the dead.

    A word repeated in the query counts once.
    """
    scores = [np.zeros(len(part.alive)) for part in parts]
    postings = [part.rows.postings() for part in parts]
    lengths = [
        np.where(part.alive, found.lengths[: len(part.alive)], 0)
        for part, found in zip(parts, postings, strict=True)
    ]
    documents = sum(int(np.count_nonzero(length)) for length in lengths)
    if documents == 0:
        return scores
    mean = sum(int(length.sum()) for length in lengths) / documents
    for word in dict.fromkeys(words(query)):
        found = [_living(part, posting.find(word)) for part, posting in zip(parts, postings, strict=True)]
        frequency = sum(len(posting.rows) for posting in found)
        weight = math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))
        for score, length, posting in zip(scores, lengths, found, strict=True):
            counts = posting.counts.astype(np.float64)
            norm = K1 * (1 - B + B * length[posting.rows] / mean)
            score[posting.rows] += weight * counts * (K1 + 1) / (counts + norm)
    return scores


def _living(part: Part, posting: Posting) -> Posting:
    inside = posting.rows < len(part.alive)
    rows, counts = posting.rows[inside], posting.counts[inside]
    alive = part.alive[rows]
    return Posting(rows[alive], counts[alive])
