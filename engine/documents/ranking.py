"""How a sentence's features become the chance that it answers the question.

One logistic model orders the sentences and decides whether the best is an answer at all. Its coefficients
were fitted by us (2026-11) on 94 answerable and 111 unanswerable questions over six PDFs (the Debian FAQ,
the bzip2 and Bash manuals, a scanned diary, a data model, a clinical guideline): softmax loss over the
sentences of a question plus logistic loss of the best one. On a seventh, which they had not seen (the
Debian Reference, 261 pages, 24 + 16 questions), 23 of 24 were answered, 20 of those with a right page
first and 22 with one among three, and 16 of 16 were refused. The sentence's cosine alone puts a right page
first for 59 % of the fitted questions, the coefficients for 76 %. `experiments/bench/qa.py` measures any
folder that comes with questions.
"""

import math
from collections.abc import Sequence

import numpy as np

from engine.documents.evidence import FEATURES, Candidate, matrix
from engine.protocols import Float32

COEFFICIENTS = {
    "similarity": 4.9,
    "passage_similarity": 3.4,
    "heading_similarity": 1.3,
    "coverage": 2.8,
    "window_coverage": 2.6,
    "passage_coverage": 1.4,
    "no_number": -2.4,
    "question": -2.7,
    "fragment": -1.2,
}
INTERCEPT = -6.1
_VECTOR = np.asarray([COEFFICIENTS[name] for name in FEATURES], dtype=np.float32)


def evidence_logits(candidates: Sequence[Candidate]) -> Float32:
    """Log-odds (candidates,) that each sentence answers; above 0 is more likely than not."""
    return np.asarray(matrix(candidates) @ _VECTOR + INTERCEPT, dtype=np.float32)


def chance(logit: float) -> float:
    """The logistic function: log-odds to a probability in [0, 1]."""
    return 0.5 * (1.0 + math.tanh(0.5 * logit))
