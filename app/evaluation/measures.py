"""Measures of rankings against judgements, computed by the library ir_measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ir_measures.measures import Measure

MEASURES = ("NDCG@10", "MRR@10", "Recall@100", "MAP", "P@5", "judged@10")
"""Measures in display order. The gain of a grade is the grade (as trec_eval's NDCG); a grade of 1
or more is relevant."""

Run = Mapping[str, Sequence[str]]
"""query id -> document ids, best first, each once."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Quality of one way of searching: values in 0..1.

    `means` is measure -> mean over all judged queries; `per_query` is measure -> query id -> value; `missing` is the
    number of queries without results, which count as 0 in every measure.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    missing: int = 0


@cache
def _measures() -> dict[str, Measure]:
    from ir_measures import AP, RR, Judged, P, R, nDCG

    return dict(zip(MEASURES, (nDCG @ 10, RR @ 10, R @ 100, AP, P @ 5, Judged @ 10), strict=True))


def measure(qrels: Mapping[str, Mapping[str, int]], run: Run) -> Measurement:
    """Measure the rankings in `run` against `qrels`; queries that only `run` has are ignored.

    MAP and Recall@100 are limited to the depth of the rankings. judged@10 is the share of judged documents among the
    first ten results (or fewer, if there are fewer).

    Raises:
        ValueError: there are no queries, or a ranking contains a document twice.
    """
    import ir_measures

    if not qrels:
        raise ValueError("there are no judged queries to measure")
    # trec_eval has no grades below 0; 0 also means judged and not relevant
    grades = {query: {doc: max(grade, 0) for doc, grade in judged.items()} for query, judged in qrels.items()}
    scored: dict[str, dict[str, float]] = {}
    for query in qrels:
        if ranking := run.get(query):
            # scores that fall with the rank: the library orders by score, and ties by id
            scored[query] = {doc: float(-rank) for rank, doc in enumerate(ranking)}
            if len(scored[query]) != len(ranking):
                raise ValueError(f"the ranking of query {query!r} contains a document twice")
    names = {of_library: name for name, of_library in _measures().items()}
    found: dict[str, dict[str, float]] = {name: {} for name in MEASURES}
    # queries without a ranking are returned as 0
    for metric in ir_measures.iter_calc(list(names), grades, scored):
        found[names[metric.measure]][metric.query_id] = float(metric.value)
    per_query = {name: {query: values[query] for query in qrels} for name, values in found.items()}
    means = {name: fmean(values.values()) for name, values in per_query.items()}
    return Measurement(means, per_query, missing=len(qrels) - len(scored))
