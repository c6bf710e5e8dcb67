"""Fusion in the service, for the cases where OpenSearch's own would be wrong or would hide the legs' scores.

Both functions follow the processors of the neural-search plugin, so that on one shard their order is the native one:
min_max maps a leg to 0..1, a leg whose scores are all equal to 1.0 and the lowest score to 0.001; the arithmetic
mean counts a passage that a leg did not return as 0; reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009)
sums 1 / (rank constant + rank), ranks from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.passage import Hit

_MIN_SCORE = 0.001
"""What the plugin gives the lowest candidate instead of 0, so that it still counts as found."""


def min_max(scores: Sequence[float]) -> list[float]:
    """Scores mapped to 0..1 as the plugin's `min_max` does. Empty in, empty out."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) or _MIN_SCORE for score in scores]


def fuse_linear(lexical: Sequence[Hit], dense: Sequence[Hit], alpha: float) -> list[Hit]:
    """Weighted mean of the min-max-normalised legs, best first; `alpha` is the dense share."""
    return _merge(
        lexical,
        dense,
        [(1.0 - alpha) * score for score in min_max([hit.score for hit in lexical])],
        [alpha * score for score in min_max([hit.score for hit in dense])],
    )


def fuse_rrf(lexical: Sequence[Hit], dense: Sequence[Hit], rank_constant: int) -> list[Hit]:
    """Reciprocal rank fusion of two legs given best first, over all shards."""

    def shares(leg: Sequence[Hit]) -> list[float]:
        return [1.0 / (rank_constant + rank) for rank in range(1, len(leg) + 1)]

    return _merge(lexical, dense, shares(lexical), shares(dense))


def _merge(lexical: Sequence[Hit], dense: Sequence[Hit], left: Sequence[float], right: Sequence[float]) -> list[Hit]:
    merged: dict[str, Hit] = {}
    for hit, share in zip(lexical, left, strict=True):
        merged[hit.id] = replace(hit, lexical=hit.score, fused=share)
    for hit, share in zip(dense, right, strict=True):
        known = merged.get(hit.id)
        if known is None:
            merged[hit.id] = replace(hit, dense=hit.score, fused=share)
        else:
            merged[hit.id] = replace(known, dense=hit.score, fused=(known.fused or 0.0) + share)
    # ties: the passage id decides, so that pages are stable whatever the legs' order was
    ordered = sorted(merged.values(), key=lambda hit: (-(hit.fused or 0.0), hit.id))
    return [replace(hit, score=hit.fused or 0.0) for hit in ordered]
