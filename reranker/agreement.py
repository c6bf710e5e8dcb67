"""Comparison of two forms of one model (fp32 and int8) on the same candidates: agreement and speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.evaluate import grades_of, score_rankings
from reranker.fitting import final_scores
from reranker.measures import DEPTH, min_max, ndcg
from reranker.model_folder import load_settings
from reranker.rankings import Qrels, Ranking

Scores = npt.NDArray[np.float64]


def compare(
    one: Path, other: Path, rankings: Sequence[Ranking], qrels: Qrels, *, depth: int, threads: int = 0
) -> dict[str, Any]:
    """Compare the model in `other` with the one in `one` over the first `depth` candidates of each query.

    Returns:
        Share of common results in the first ten and share of queries with the same ten, by the model alone and by the
        final score; NDCG@10 of both (model alone) where queries are judged; milliseconds per pair.

    Raises:
        ModelFolderError, InferenceError.
    """
    from reranker.cross_encoder import CrossEncoder

    rankings = [ranking.first(depth) for ranking in rankings]
    (left, left_ms), (right, right_ms) = (
        score_rankings(CrossEncoder(folder, threads=threads), rankings) for folder in (one, other)
    )
    settings = load_settings(one)
    graded = [grades_of(ranking, qrels) for ranking in rankings]

    def quality(logits: Sequence[Scores]) -> float | None:
        found = [ndcg(scores, *grades) for scores, grades in zip(logits, graded, strict=True) if grades[1]]
        return float(np.mean(found)) if found else None

    def final(logits: Sequence[Scores]) -> list[Scores]:
        fused = (min_max(np.array(ranking.scores, np.float64)) for ranking in rankings)
        return [
            final_scores(first, settings.probability(scores), settings.weight)
            for first, scores in zip(fused, logits, strict=True)
        ]

    return {
        "queries": len(rankings),
        "candidates": depth,
        "alone": _top_ten_overlap(left, right),
        "final score": _top_ten_overlap(final(left), final(right)),
        "NDCG@10": {
            "judged queries": sum(ideal > 0 for _, ideal in graded),
            "of the first": quality(left),
            "of the second": quality(right),
        },
        "ms per pair": {"of the first": round(left_ms, 3), "of the second": round(right_ms, 3)},
        "largest difference of logits": max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True)),
    }


def _top_ten_overlap(left: Sequence[Scores], right: Sequence[Scores]) -> dict[str, float]:
    shares = []
    for a, b in zip(left, right, strict=True):
        first = [set(np.argsort(-scores, kind="stable")[:DEPTH].tolist()) for scores in (a, b)]
        shares.append(len(first[0] & first[1]) / len(first[0]))
    return {
        "shared of the first ten": round(float(np.mean(shares)), 4),
        "queries with the same ten": round(float(np.mean([share == 1.0 for share in shares])), 4),
    }
