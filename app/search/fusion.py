"""Fusion in the service, exact for any number of shards.

Normalisation follows the processors of the neural-search plugin: min_max maps a leg to 0..1, a leg whose scores are all
equal to 1.0 and the lowest score to 0.001; l2 divides by the Euclidean norm; z_score is (score - mean) / deviation, as
OpenSearch has it from 3.0. The arithmetic mean counts a passage that a leg did not return as 0 (z_score: as that leg's
lowest). Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009) sums 1 / (rank constant + rank), ranks from 1.

One deliberate difference: **a leg without signal is not amplified.** If a leg's scores lie closer together than `FLAT`,
min_max divides by that distance instead of the spread, so that meaningless differences can't outvote the other leg; a
spread of zero gives the plugin's 1.0 for all, and a spread of `FLAT` or more gives plain min_max.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from app.passage import Candidate
from app.tuning import Normalization

Scores = npt.NDArray[np.float64]
Leg = Literal["lexical", "dense"]

_MIN_SCORE = 0.001
"""The plugin's value for the lowest candidate, so that it still counts as found."""
FLAT: Mapping[Leg, float] = {"lexical": 0.02, "dense": 0.02}
"""Minimum spread that counts as signal, as a share of the leg's best score."""


class FusedCandidate(NamedTuple):
    """A candidate with each leg's score (None: not among that leg's candidates); `bonus` is for exact matches.

    `rerank` is the reranker's score, `final` the blend of it and the fused score, if it was reranked.
    """

    id: str
    document_id: str
    fused: float
    lexical: float | None = None
    dense: float | None = None
    bonus: float = 0.0
    rerank: float | None = None
    final: float | None = None

    @property
    def score(self) -> float:
        """The score that orders the results."""
        return (self.fused if self.final is None else self.final) + self.bonus

    @property
    def place(self) -> tuple[float, float, str]:
        """Sort key: score, then exact matches, then the passage id, so that pages are stable."""
        return -self.score, -self.bonus, self.id


def min_max(scores: Sequence[float], flat: float = 0.0) -> Scores:
    """Scale scores to 0..1.

    Args:
        scores: scores of one ranking, shape (n,).
        flat: minimum spread that counts, as a share of the best score.

    Returns:
        Scaled scores, shape (n,).
    """
    values = np.asarray(scores, np.float64)
    if not values.size:
        return values
    high, spread = values.max(), np.ptp(values)
    floor = flat * abs(high)
    if spread == 0:
        return np.ones_like(values)
    if spread < floor:
        return np.asarray(1.0 - (high - values) / floor)
    scaled: Scores = (values - values.min()) / spread
    scaled[scaled == 0.0] = _MIN_SCORE
    return scaled


def normalise(scores: Sequence[float], technique: Normalization, leg: Leg) -> tuple[Scores, float]:
    """Return a leg's scores on a common scale, shape (n,), and the value of passages that the leg did not return."""
    values = np.asarray(scores, np.float64)
    if technique == "min_max" or not values.size:
        return min_max(values.tolist(), FLAT[leg]), 0.0
    if technique == "l2":
        norm = float(np.linalg.norm(values))
        return (values / norm if norm else np.ones_like(values)), 0.0
    deviation = float(values.std())
    if deviation <= FLAT[leg] * abs(float(values.max())) / 4:  # no signal: all are equal
        return np.ones_like(values), 0.0
    standard: Scores = (values - values.mean()) / deviation
    return standard, float(standard.min())


def bonus_scale(*legs: tuple[Scores, float]) -> float:
    """Return the factor that lifts a bonus of 1 above all fused scores of `legs`, each from `normalise`.

    It is 1 for scores of 0..1; those of z_score lie further apart.
    """
    spans = (
        max(float(values.max()), absent) - min(float(values.min()), absent) for values, absent in legs if len(values)
    )
    return _round_up(max([0.0, *spans]))


def fuse_linear(
    lexical: Sequence[Candidate],
    dense: Sequence[Candidate],
    alpha: float,
    *,
    normalization: Normalization = "min_max",
    bonus: Mapping[str, float] | None = None,
) -> list[FusedCandidate]:
    """Return the weighted mean of the normalised legs, best first.

    Args:
        lexical: candidates of the text leg, with its scores.
        dense: candidates of the vector leg.
        alpha: the dense share, 0..1.
        normalization: the legs' normalisation.
        bonus: passage id -> bonus of an exact match, also for the order, as a share of the range of scores.
    """
    left, left_absent = normalise([item.score for item in lexical], normalization, "lexical")
    right, right_absent = normalise([item.score for item in dense], normalization, "dense")
    scale = bonus_scale((left, left_absent), (right, right_absent))
    return _merge(
        lexical,
        dense,
        ((1.0 - alpha) * left, (1.0 - alpha) * left_absent),
        (alpha * right, alpha * right_absent),
        {key: scale * value for key, value in (bonus or {}).items()},
    )


def fuse_rrf(
    lexical: Sequence[Candidate],
    dense: Sequence[Candidate],
    rank_constant: int,
    *,
    bonus: Mapping[str, float] | None = None,
) -> list[FusedCandidate]:
    """Return the reciprocal rank fusion of two legs, given best first, over all shards."""

    def shares(leg: Sequence[Candidate]) -> tuple[Scores, float]:
        return 1.0 / (rank_constant + np.arange(1, len(leg) + 1, dtype=np.float64)), 0.0

    return _merge(lexical, dense, shares(lexical), shares(dense), bonus or {})


def rank_alone(leg: Sequence[Candidate], which: Leg, bonus: Mapping[str, float] | None = None) -> list[FusedCandidate]:
    """Rank one leg alone, by its own scores; `bonus` as in `fuse_linear`."""
    scores = np.array([item.score for item in leg], np.float64)
    scale = _round_up(float(np.ptp(scores)) if len(scores) else 0.0)
    ranked = [
        FusedCandidate(
            item.id,
            item.document_id,
            item.score,
            lexical=item.score if which == "lexical" else None,
            dense=item.score if which == "dense" else None,
            bonus=scale * (bonus or {}).get(item.id, 0.0),
        )
        for item in leg
    ]
    return sorted(ranked, key=lambda item: item.place)


def _round_up(span: float) -> float:
    return span * (1 + 1e-9) if span > 1 else 1.0  # rounding must not make it too small


def _merge(
    lexical: Sequence[Candidate],
    dense: Sequence[Candidate],
    left: tuple[Scores, float],
    right: tuple[Scores, float],
    bonus: Mapping[str, float],
) -> list[FusedCandidate]:
    lexical_share = dict(zip((item.id for item in lexical), left[0].tolist(), strict=True))
    dense_share = dict(zip((item.id for item in dense), right[0].tolist(), strict=True))
    lexical_score = {item.id: item.score for item in lexical}
    dense_score = {item.id: item.score for item in dense}
    documents = {item.id: item.document_id for item in (*lexical, *dense)}
    merged = [
        FusedCandidate(
            key,
            document_id,
            lexical_share.get(key, left[1]) + dense_share.get(key, right[1]),
            lexical_score.get(key),
            dense_score.get(key),
            bonus.get(key, 0.0),
        )
        for key, document_id in documents.items()
    ]
    return sorted(merged, key=lambda item: item.place)
