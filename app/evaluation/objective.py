"""The objective of tuning: one measure, computed many times over the same judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from app.evaluation.learning import GRID, Array, Examples
from app.evaluation.ranking import NormalizedLegs

MeasureName = Literal["NDCG@10", "MRR@10"]
_DEPTH = 10


class Objective:
    """NDCG@10 or MRR@10 of each query, computed by the library ir_measures."""

    def __init__(self, qrels: Mapping[str, Mapping[str, int]], measure: MeasureName) -> None:
        """Store the judgements of the queries to rank."""
        from ir_measures import RR, evaluator, nDCG

        self.queries = list(qrels)
        self.measure = measure
        grades = {query: {doc: max(grade, 0) for doc, grade in judged.items()} for query, judged in qrels.items()}
        self._evaluator = evaluator([nDCG @ _DEPTH if measure == "NDCG@10" else RR @ _DEPTH], grades)
        self._place = {query: place for place, query in enumerate(self.queries)}

    def values(self, rankings: Mapping[str, Sequence[str]]) -> Array:
        """Return the measure of each query, shape (queries,), in the order of `queries`; 0 without a ranking."""
        scored = {
            query: {doc: float(-rank) for rank, doc in enumerate(ranking[:_DEPTH])}
            for query, ranking in rankings.items()
            if ranking
        }
        found = np.zeros(len(self.queries))
        for metric in self._evaluator.iter_calc(scored):
            found[self._place[metric.query_id]] = metric.value
        return found

    def at(self, prepared: Mapping[str, NormalizedLegs], alpha: float) -> Array:
        """Return the measure of each query at a common dense share."""
        return self.values({query: item.ranking(alpha, _DEPTH) for query, item in prepared.items()})

    def curves(self, prepared: Mapping[str, NormalizedLegs], grid: Array = GRID) -> Array:
        """Return the measure of each query at each dense share of the grid, shape (queries, len(grid))."""
        return np.column_stack([self.at(prepared, float(alpha)) for alpha in grid])


def examples(features: Mapping[str, Array], objective: Objective, curves: Array) -> Examples:
    """Return the weight model's training data, queries in the objective's order."""
    return Examples.of([features[query] for query in objective.queries], list(curves))
