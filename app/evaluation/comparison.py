"""Comparison of two ways over the same queries: size of the difference, confidence, and the queries that cause it.

Queries are the sample. Intervals are bootstrap percentiles; tests are paired (on the choice: Smucker, Allan and
Carterette, "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from app.evaluation.measures import Measurement

if TYPE_CHECKING:
    import numpy as np

SAME = 1e-9
"""Differences below it are ties."""
EXTREMES = 10

_RESAMPLES = 2000
_PERMUTATIONS = 9999
_BATCH = 250
"""Number of resamples in memory at once."""


@dataclass(frozen=True, slots=True)
class QueryDifference:
    """One query's values under both ways."""

    query_id: str
    baseline: float
    way: float

    @property
    def difference(self) -> float:
        """Difference of the values; positive if `way` is better."""
        return self.way - self.baseline


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of `way` with `baseline` in one measure; values are in 0..1, positive differences mean that `way` is
    better.

    `low` and `high` are the 95 % bounds of the mean difference. `p_t` belongs to the paired t test, `p_randomization`
    to the paired randomisation test; both are two-sided and for this comparison alone (see `holm`). `biggest_wins` and
    `biggest_losses` have up to ten queries each, the biggest first.
    """

    baseline: str
    way: str
    measure: str
    mean_difference: float
    low: float
    high: float
    p_t: float
    p_randomization: float
    wins: int
    losses: int
    ties: int
    biggest_wins: tuple[QueryDifference, ...]
    biggest_losses: tuple[QueryDifference, ...]


def interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = _RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Return bounds of the mean of `values`: percentiles of the means of bootstrap samples, reproducible by `seed`.

    Equal values, or a single one, give bounds that coincide: nothing is known about their spread.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there are no values")
    if min(values) == max(values):
        return float(values[0]), float(values[0])
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def compare(
    baseline: Measurement,
    way: Measurement,
    measure: str,
    *,
    names: tuple[str, str] = ("baseline", "way"),
    seed: int = 0,
    resamples: int = _RESAMPLES,
    permutations: int = _PERMUTATIONS,
) -> Comparison:
    """Compare two ways, query by query, in one measure.

    Raises:
        ValueError: the two were not measured over the same queries.
    """
    before, after = baseline.per_query[measure], way.per_query[measure]
    if before.keys() != after.keys():
        raise ValueError(f"{names[0]} and {names[1]} were not measured over the same queries")
    pairs = [QueryDifference(query_id, before[query_id], after[query_id]) for query_id in before]
    differences = [0.0 if abs(pair.difference) < SAME else pair.difference for pair in pairs]
    low, high = interval(differences, seed=seed, resamples=resamples)
    wins = sorted((p for p in pairs if p.difference >= SAME), key=lambda p: (-p.difference, p.query_id))
    losses = sorted((p for p in pairs if p.difference <= -SAME), key=lambda p: (p.difference, p.query_id))
    return Comparison(
        baseline=names[0],
        way=names[1],
        measure=measure,
        mean_difference=fmean(differences),
        low=low,
        high=high,
        p_t=_t_test(differences),
        p_randomization=_randomization_test(differences, seed, permutations),
        wins=len(wins),
        losses=len(losses),
        ties=len(pairs) - len(wins) - len(losses),
        biggest_wins=tuple(wins[:EXTREMES]),
        biggest_losses=tuple(losses[:EXTREMES]),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values of several tests, adjusted for multiple testing (Holm 1979), in the order given.

    With 95 % certainty, none of the tests below 0.05 after the adjustment is a false alarm.
    """
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def _t_test(differences: Sequence[float]) -> float:
    """Return p of the paired t test; 1 for differences without spread, which the test can't handle."""
    if max(differences) - min(differences) < SAME:
        return 1.0
    from scipy import stats

    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _randomization_test(differences: Sequence[float], seed: int, permutations: int) -> float:
    """Return p: exact for few queries (all sign flips), else from `permutations` random flips."""
    moved = [difference for difference in differences if difference]  # flipping the sign of a tie changes nothing
    if len(moved) < 2:
        return 1.0  # both signs are equally extreme
    import numpy as np
    from scipy import stats

    def total(sample: np.ndarray, axis: int) -> Any:
        return sample.sum(axis=axis)

    found = stats.permutation_test(
        (np.asarray(moved),),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
