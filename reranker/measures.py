"""NDCG@10 and MRR@10 of one ranking, and scores on a common scale: small enough to be run thousands of times."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

DEPTH = 10
_DISCOUNTS: Scores = 1.0 / np.log2(np.arange(2, DEPTH + 2))


def ideal_dcg(grades: Iterable[float]) -> float:
    """The greatest DCG@10 that documents of these grades allow; the gain of a grade is the grade (trec_eval's)."""
    best = np.sort(np.maximum(np.fromiter(grades, np.float64), 0.0))[::-1][:DEPTH]
    return float(best @ _DISCOUNTS[: len(best)])


def ndcg(scores: Scores, grades: Scores, ideal: float) -> float:
    """NDCG@10 of candidates ordered by `scores` (n,), falling, ties as they stand; 0 where `ideal` is 0.

    Args:
        scores: what orders the candidates.
        grades: of the same candidates, (n,); below 0 counts as 0.
        ideal: `ideal_dcg` of all judged documents, also of those that are no candidates.
    """
    if not ideal:
        return 0.0
    first = np.argsort(-scores, kind="stable")[:DEPTH]
    return float(np.maximum(grades[first], 0.0) @ _DISCOUNTS[: len(first)]) / ideal


def mrr(scores: Scores, grades: Scores) -> float:
    """One over the rank of the first candidate with a grade of 1 or more, 0 if it is not among the first ten."""
    first = np.argsort(-scores, kind="stable")[:DEPTH]
    relevant = np.flatnonzero(grades[first] >= 1)
    return 1.0 / (1 + int(relevant[0])) if len(relevant) else 0.0


def min_max(scores: Scores) -> Scores:
    """Scores mapped to 0..1, (n,) in and out; equal ones all to 1."""
    if not len(scores):
        return scores
    spread = float(np.ptp(scores))
    return (scores - scores.min()) / spread if spread else np.ones_like(scores)
