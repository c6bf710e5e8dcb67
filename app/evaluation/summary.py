"""Summary of an evaluation for its reports: intervals, comparisons with the baseline, remarks."""

from __future__ import annotations

from dataclasses import dataclass

from app.evaluation.comparison import Comparison, compare, holm, interval
from app.evaluation.measures import MEASURES
from app.evaluation.results import Evaluation, WayResult

MAIN = "NDCG@10"
COMPARED = (MAIN, "MRR@10")
"""Measures for comparisons; the first one determines the best way."""
HOLES = "judged@10"
"""Coverage of the judgements; not a measure of quality."""
QUALITY = tuple(name for name in MEASURES if name != HOLES)
SIGNIFICANT = 0.05

_FEW_QUERIES = 30
_FEWER_JUDGED = 0.05
_MANY_WAYS = 4


@dataclass(frozen=True, slots=True)
class AdjustedComparison:
    """A comparison with the baseline; `p` is from the randomisation test, adjusted for the number of ways."""

    comparison: Comparison
    p: float

    @property
    def verdict(self) -> str:
        """Return ``better``, ``worse``, or ``unclear`` if the difference may be chance."""
        if self.p >= SIGNIFICANT:
            return "unclear"
        return "better" if self.comparison.mean_difference > 0 else "worse"


@dataclass(frozen=True, slots=True)
class WaySummary:
    """A way with the 95 % bounds of its means, and (except for the baseline) its comparisons, by measure."""

    result: WayResult
    intervals: dict[str, tuple[float, float]]
    against_baseline: dict[str, AdjustedComparison]


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of the reports; `challenger` is the best way besides the baseline, `tops` are the best means by
    measure.
    """

    evaluation: Evaluation
    ways: tuple[WaySummary, ...]
    challenger: WaySummary | None
    tops: dict[str, float]
    remarks: tuple[str, ...]


def summarise(evaluation: Evaluation) -> Summary:
    """Compute all figures of the reports; takes some seconds for thousands of queries and twenty ways."""
    baseline = next(way for way in evaluation.ways if way.name == evaluation.baseline)
    others = [way for way in evaluation.ways if way is not baseline]
    compared: dict[str, dict[str, AdjustedComparison]] = {way.name: {} for way in evaluation.ways}
    for measure in COMPARED:
        found = [compare(baseline.measured, way.measured, measure, names=(baseline.name, way.name)) for way in others]
        for comparison, p in zip(found, holm([each.p_randomization for each in found]), strict=True):
            compared[comparison.way][measure] = AdjustedComparison(comparison, p)
    ways = tuple(WaySummary(way, _intervals(way), compared[way.name]) for way in evaluation.ways)
    challenger = max(
        (way for way in ways if way.against_baseline), key=lambda way: way.result.measured.means[MAIN], default=None
    )
    tops = {name: max(way.measured.means[name] for way in evaluation.ways) for name in MEASURES}
    return Summary(evaluation, ways, challenger, tops, tuple(_remarks(evaluation, ways, challenger)))


def signed(value: float) -> str:
    """Format a difference with its sign and three decimals."""
    return f"{value:+.3f}".replace("-", "−")


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _intervals(way: WayResult) -> dict[str, tuple[float, float]]:
    return {name: interval(list(way.measured.per_query[name].values())) for name in QUALITY}


def _remarks(evaluation: Evaluation, ways: tuple[WaySummary, ...], challenger: WaySummary | None) -> list[str]:
    remarks = []
    if challenger is not None:
        remarks.append(_winner(challenger))
        if len(ways) >= _MANY_WAYS:
            remarks.append(
                f"The best of {len(ways)} ways looks slightly better here than on other queries, because it was "
                "chosen on these: choose on one part of the queries, and report the figures of the other."
            )
    queries = len(evaluation.dataset.queries)
    if queries < _FEW_QUERIES:
        remarks.append(
            "There is only 1 query: the result does not generalise to others."
            if queries == 1
            else f"There are only {queries} queries: the intervals are wide, and small differences are not detectable."
        )
    remarks += _holes(evaluation)
    for way in evaluation.ways:
        if way.failed:
            remarks.append(f"{way.name}: {_count_of(way.failed, queries)} failed or were degraded.")
        if way.measured.missing:
            remarks.append(
                f"{way.name}: nothing was found for {_count_of(way.measured.missing, queries)}; they count as 0."
            )
    return remarks


def _winner(challenger: WaySummary) -> str:
    compared = challenger.against_baseline[MAIN]
    found = compared.comparison
    bounds = f"95 % interval {signed(found.low)} to {signed(found.high)}, adjusted p {p_value(compared.p)}"
    told = (
        f"{found.way} has the highest {MAIN} of the ways compared with {found.baseline}: "
        f"{challenger.result.measured.means[MAIN]:.3f}, a difference of {signed(found.mean_difference)} ({bounds})."
    )
    return f"{told} That may be chance." if compared.verdict == "unclear" else told


def _holes(evaluation: Evaluation) -> list[str]:
    """Return remarks on missing judgements and their effect on the figures."""
    if all(grade > 0 for grades in evaluation.dataset.qrels.values() for grade in grades.values()):
        return [
            "Only relevant documents are judged in this set, so judged@10 does not distinguish a wrong result from an "
            "unjudged one: if relevant documents were overlooked, all figures are too low, most of all for ways that "
            "differ from the ways that found the judged documents."
        ]
    means = {way.name: way.measured.means[HOLES] for way in evaluation.ways}
    most = max(means.values())
    fewer = [f"{name} ({value:.2f})" for name, value in means.items() if value < most - _FEWER_JUDGED]
    if not fewer:
        return []
    return [
        f"Fewer of the results of {', '.join(fewer)} are judged than of others (up to {most:.2f}). Unjudged results "
        "count as wrong, so these figures are probably too low."
    ]


def _count_of(count: int, queries: int) -> str:
    return f"{count} of {queries} queries"
