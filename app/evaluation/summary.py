"""From values per query to what a report says: intervals, comparisons with the baseline, remarks in words."""

from __future__ import annotations

from dataclasses import dataclass

from app.evaluation.comparison import Comparison, compare, holm, interval
from app.evaluation.measures import MEASURES
from app.evaluation.results import Evaluation, WayResult

MAIN = "NDCG@10"
COMPARED = (MAIN, "MRR@10")
"""Measures in which ways are compared; the first decides which is best."""
HOLES = "judged@10"
"""Not a measure of quality: how much of what is measured was judged at all."""
QUALITY = tuple(name for name in MEASURES if name != HOLES)
SIGNIFICANT = 0.05

_FEW_QUERIES = 30
_FEWER_JUDGED = 0.05
_MANY_WAYS = 4


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison with the baseline; `p` is its randomisation test's, adjusted for there being several ways."""

    comparison: Comparison
    p: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``unclear`` where it may be chance."""
        if self.p >= SIGNIFICANT:
            return "unclear"
        return "better" if self.comparison.mean_difference > 0 else "worse"


@dataclass(frozen=True, slots=True)
class WaySummary:
    """A way with the 95 % bounds of its means, and (unless it is the baseline) its comparisons, by measure."""

    result: WayResult
    intervals: dict[str, tuple[float, float]]
    against_baseline: dict[str, Compared]


@dataclass(frozen=True, slots=True)
class Summary:
    """`challenger` is the best way other than the baseline, if there is one; `tops` are each measure's best means."""

    evaluation: Evaluation
    ways: tuple[WaySummary, ...]
    challenger: WaySummary | None
    tops: dict[str, float]
    remarks: tuple[str, ...]


def summarise(evaluation: Evaluation) -> Summary:
    """Work out everything that the reports show; takes some seconds for thousands of queries and twenty ways."""
    baseline = next(way for way in evaluation.ways if way.name == evaluation.baseline)
    others = [way for way in evaluation.ways if way is not baseline]
    compared: dict[str, dict[str, Compared]] = {way.name: {} for way in evaluation.ways}
    for measure in COMPARED:
        found = [compare(baseline.measured, way.measured, measure, names=(baseline.name, way.name)) for way in others]
        for comparison, p in zip(found, holm([each.p_randomization for each in found]), strict=True):
            compared[comparison.way][measure] = Compared(comparison, p)
    ways = tuple(WaySummary(way, _intervals(way), compared[way.name]) for way in evaluation.ways)
    challenger = max(
        (way for way in ways if way.against_baseline), key=lambda way: way.result.measured.means[MAIN], default=None
    )
    tops = {name: max(way.measured.means[name] for way in evaluation.ways) for name in MEASURES}
    return Summary(evaluation, ways, challenger, tops, tuple(_remarks(evaluation, ways, challenger)))


def signed(value: float) -> str:
    """A difference to three decimals, with its sign."""
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
                f"The best of {len(ways)} ways looks a little better here than it will on other queries, since it was "
                "chosen on these: choose on one part of the queries, and believe the figures of the other."
            )
    queries = len(evaluation.dataset.queries)
    if queries < _FEW_QUERIES:
        remarks.append(
            "There is only 1 query: nothing can be said of other queries."
            if queries == 1
            else f"There are only {queries} queries: the intervals are rough, and small differences can't be seen."
        )
    remarks += _holes(evaluation)
    for way in evaluation.ways:
        if way.failed:
            remarks.append(f"{way.name}: {_of(way.failed, queries)} failed or were degraded.")
        if way.measured.missing:
            remarks.append(f"{way.name}: nothing was found for {_of(way.measured.missing, queries)}; they count as 0.")
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
    """What judged@10 says here about how far the figures can be trusted."""
    if all(grade > 0 for grades in evaluation.dataset.qrels.values() for grade in grades.values()):
        return [
            "Only relevant documents are judged in this set, so judged@10 can't tell a wrong result from one that "
            "nobody judged: if relevant documents were overlooked, all figures are too low, and most so for ways that "
            "differ from those by which the judged documents were found."
        ]
    means = {way.name: way.measured.means[HOLES] for way in evaluation.ways}
    most = max(means.values())
    fewer = [f"{name} ({value:.2f})" for name, value in means.items() if value < most - _FEWER_JUDGED]
    if not fewer:
        return []
    return [
        f"Fewer of the results of {', '.join(fewer)} are judged than of others (up to {most:.2f}). What is not judged "
        "counts as wrong, so these figures are rather too low."
    ]


def _of(count: int, queries: int) -> str:
    return f"{count} of {queries} queries"
