"""NDCG@10 and MRR@10 of one ranking, and score normalisation: fast enough to run thousands of times."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

DEPTH = 10
_DISCOUNTS: Scores = 1.0 / np.log2(np.arange(2, DEPTH + 2))


def ideal_dcg(grades: Iterable[float]) -> float:
    """Return the greatest DCG@10 that documents of these grades allow; the gain of a grade is the
    grade (as trec_eval)."""
    best = np.sort(np.maximum(np.fromiter(grades, np.float64), 0.0))[::-1][:DEPTH]
    return float(best @ _DISCOUNTS[: len(best)])


def ndcg(scores: Scores, grades: Scores, ideal: float) -> float:
    """Return NDCG@10 of candidates ordered by `scores` (n,) descending, ties in their order; 0 if `ideal` is 0.

    Args:
        scores: scores to order the candidates by.
        grades: grades of the same candidates, (n,); negative grades count as 0.
        ideal: `ideal_dcg` of all judged documents, including those that are not candidates.
    """
    if not ideal:
        return 0.0
    first = np.argsort(-scores, kind="stable")[:DEPTH]
    return float(np.maximum(grades[first], 0.0) @ _DISCOUNTS[: len(first)]) / ideal


def mrr(scores: Scores, grades: Scores) -> float:
    """Return 1 / rank of the first candidate with a grade of 1 or more; 0 if it is not in the first ten."""
    first = np.argsort(-scores, kind="stable")[:DEPTH]
    relevant = np.flatnonzero(grades[first] >= 1)
    return 1.0 / (1 + int(relevant[0])) if len(relevant) else 0.0


def min_max(scores: Scores) -> Scores:
    """Scale scores to 0..1, (n,) in and out; equal scores become 1."""
    if not len(scores):
        return scores
    spread = float(np.ptp(scores))
    return (scores - scores.min()) / spread if spread else np.ones_like(scores)
