"""Two forms of one model, fp32 and int8, on the same candidates: do they rank alike, and which is faster?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.fitting import final_scores
from reranker.measures import DEPTH, ideal_dcg, min_max, ndcg
from reranker.model_folder import ModelSettings, load_settings
from reranker.rankings import Qrels, Ranking

Scores = npt.NDArray[np.float64]


def compare(
    one: Path, other: Path, rankings: Sequence[Ranking], qrels: Qrels, *, depth: int, threads: int = 0
) -> dict[str, Any]:
    """How the model in `other` differs from the one in `one`, over the first `depth` candidates of each query.

    Returns:
        The share of the first ten that both have, and of queries with the very same ten, by the model alone and by the
        final score; NDCG@10 of both (alone) where queries are judged; milliseconds per pair.

    Raises:
        ModelFolderError, InferenceError.
    """
    (left, left_ms), (right, right_ms) = (_logits(folder, rankings, depth, threads) for folder in (one, other))
    settings = load_settings(one)
    judged = [
        (a, b, np.array([qrels[r.query_id].get(c.id, 0) for c in r.candidates[:depth]], np.float64), ideal)
        for a, b, r in zip(left, right, rankings, strict=True)
        if (ideal := ideal_dcg(qrels.get(r.query_id, {}).values()))
    ]
    before = float(np.mean([ndcg(a, grades, ideal) for a, _, grades, ideal in judged])) if judged else None
    after = float(np.mean([ndcg(b, grades, ideal) for _, b, grades, ideal in judged])) if judged else None
    return {
        "queries": len(rankings),
        "candidates": depth,
        "alone": _alike(left, right),
        "final score": _alike(
            [_final(a, r, settings, depth) for a, r in zip(left, rankings, strict=True)],
            [_final(b, r, settings, depth) for b, r in zip(right, rankings, strict=True)],
        ),
        "NDCG@10": {"judged queries": len(judged), "of the first": before, "of the second": after},
        "ms per pair": {"of the first": round(left_ms, 3), "of the second": round(right_ms, 3)},
        "largest difference of logits": max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True)),
    }


def _logits(folder: Path, rankings: Sequence[Ranking], depth: int, threads: int) -> tuple[list[Scores], float]:
    from reranker.cross_encoder import CrossEncoder

    model = CrossEncoder(folder, threads=threads)
    began = time.perf_counter()
    found = [
        np.asarray(model.score(ranking.query, [item.text for item in ranking.candidates[:depth]]).logits, np.float64)
        for ranking in rankings
    ]
    return found, 1000 * (time.perf_counter() - began) / max(1, sum(map(len, found)))


def _final(logits: Scores, ranking: Ranking, settings: ModelSettings, depth: int) -> Scores:
    fused = min_max(np.array([item.score for item in ranking.candidates[:depth]], np.float64))
    return final_scores(fused, settings.probability(logits), settings.weight)


def _alike(left: Sequence[Scores], right: Sequence[Scores]) -> dict[str, float]:
    shares = []
    for a, b in zip(left, right, strict=True):
        first = [set(np.argsort(-scores, kind="stable")[:DEPTH].tolist()) for scores in (a, b)]
        shares.append(len(first[0] & first[1]) / len(first[0]))
    return {
        "shared of the first ten": round(float(np.mean(shares)), 4),
        "queries with the same ten": round(float(np.mean([share == 1.0 for share in shares])), 4),
    }
