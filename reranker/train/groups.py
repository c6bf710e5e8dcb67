"""Training groups: the passages of a query in one step, and their target scores.

Each group is a query with the teacher's first passage, a passage that is a candidate of another query only (an easy
negative), and others from its own candidates: half of them hard (those ranked right after the first), half from the
rest. They are drawn in every epoch from the seed alone, so that a resumed run continues identically.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reranker.rankings import Ranking

Scores = npt.NDArray[np.float64]

SPREAD = 1.0
"""Standard deviation of the targets within a query."""
LABEL = 2.0
"""Added to the teacher's target by a label, so that a relevant passage ranks above the teacher's preferences."""
_HARD = 10
_TRIES = 5
_POOL = 32
"""Batches whose queries are sorted by length together: little padding, yet a random order."""


@dataclass(frozen=True, slots=True)
class Group:
    """A query, some of its passages, and the passages' targets, (n,)."""

    query: str
    documents: tuple[str, ...]
    targets: Scores


def targets_of(rankings: Sequence[Ranking], scores: Sequence[Scores]) -> list[Scores]:
    """Return the teacher's scores on one scale: mean 0 within a query, deviation `SPREAD`, labels added."""
    centred = [item - item.mean() for item in scores]
    deviation = float(np.sqrt(np.mean(np.concatenate(centred) ** 2))) if centred else 0.0
    scale = SPREAD / deviation if deviation else 0.0
    return [
        scale * item + LABEL * np.array([(candidate.label or 0) > 0 for candidate in ranking.candidates], np.float64)
        for ranking, item in zip(rankings, centred, strict=True)
    ]


def usable_queries(rankings: Sequence[Ranking], targets: Sequence[Scores], size: int) -> list[int]:
    """Return the indices of the queries that can teach: enough candidates, and a preference of the teacher."""
    return [
        index
        for index, (ranking, target) in enumerate(zip(rankings, targets, strict=True))
        if len(ranking.candidates) >= size and float(np.ptp(target)) > 0
    ]


def batches_of(
    rankings: Sequence[Ranking],
    targets: Sequence[Scores],
    *,
    epoch: int,
    seed: int,
    queries: int,
    size: int,
) -> list[list[Group]]:
    """Return an epoch's batches: each query once, `queries` groups per batch with `size` passages each."""
    rng = np.random.default_rng([seed, epoch])
    groups = [
        _draw(rankings, index, targets[index], np.random.default_rng([seed, epoch, _random_key(rankings[index])]), size)
        for index in usable_queries(rankings, targets, size)
    ]
    order = rng.permutation(len(groups))
    found: list[list[Group]] = []
    for start in range(0, len(order), queries * _POOL):
        pool = [groups[index] for index in order[start : start + queries * _POOL]]
        pool.sort(key=lambda group: max(map(len, group.documents)))
        found += [pool[first : first + queries] for first in range(0, len(pool), queries)]
    return [found[index] for index in rng.permutation(len(found))]


def _draw(rankings: Sequence[Ranking], number: int, target: Scores, rng: np.random.Generator, size: int) -> Group:
    ranking = rankings[number]
    easy = _draw_foreign_passage(rankings, ranking, rng) if size > 2 else None
    own = size - 1 if easy is None else size - 2
    order = np.argsort(-target, kind="stable")
    hard, rest = order[1 : 1 + _HARD], order[1 + _HARD :]
    from_hard = min(len(hard), own - min(len(rest), own // 2))
    chosen = [
        order[0],
        *rng.choice(hard, from_hard, replace=False),
        *rng.choice(rest, own - from_hard, replace=False),
    ]
    documents = tuple(ranking.candidates[index].text for index in chosen)
    if easy is None:
        return Group(ranking.query, documents, target[chosen])
    return Group(ranking.query, (*documents, easy), np.append(target[chosen], target.min() - SPREAD))


def _draw_foreign_passage(rankings: Sequence[Ranking], ranking: Ranking, rng: np.random.Generator) -> str | None:
    """Return a random passage that is not a candidate of this query; None if several draws find none."""
    own = {item.text for item in ranking.candidates}
    for _ in range(_TRIES):
        other = rankings[int(rng.integers(len(rankings)))].candidates
        text = other[int(rng.integers(len(other)))].text
        if text not in own:
            return text
    return None


def _random_key(ranking: Ranking) -> int:
    return zlib.crc32(ranking.query_id.encode("utf-8", "surrogatepass"))
