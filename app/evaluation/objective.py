"""One measure, computed many times over the same judgements: what a search for better settings maximises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from app.evaluation.learning import GRID, Array, Examples
from app.evaluation.ranking import Prepared

MeasureName = Literal["NDCG@10", "MRR@10"]
_DEPTH = 10


class Objective:
    """NDCG@10 or MRR@10 of each query, by the library ir_measures."""

    def __init__(self, qrels: Mapping[str, Mapping[str, int]], measure: MeasureName) -> None:
        """Take the judgements of the queries that will be ranked."""
        from ir_measures import RR, evaluator, nDCG

        self.queries = list(qrels)
        self.measure = measure
        grades = {query: {doc: max(grade, 0) for doc, grade in judged.items()} for query, judged in qrels.items()}
        self._evaluator = evaluator([nDCG @ _DEPTH if measure == "NDCG@10" else RR @ _DEPTH], grades)
        self._place = {query: place for place, query in enumerate(self.queries)}

    def values(self, rankings: Mapping[str, Sequence[str]]) -> Array:
        """The measure of each query, shape (queries,), in the order of `queries`; one without a ranking is 0."""
        scored = {
            query: {doc: float(-rank) for rank, doc in enumerate(ranking[:_DEPTH])}
            for query, ranking in rankings.items()
            if ranking
        }
        found = np.zeros(len(self.queries))
        for metric in self._evaluator.iter_calc(scored):
            found[self._place[metric.query_id]] = metric.value
        return found

    def at(self, prepared: Mapping[str, Prepared], alpha: float) -> Array:
        """The measure of each query at one dense share for all."""
        return self.values({query: item.ranking(alpha, _DEPTH) for query, item in prepared.items()})

    def at_each(self, prepared: Mapping[str, Prepared], shares: Mapping[str, float]) -> Array:
        """The measure of each query at a dense share of its own."""
        return self.values({query: item.ranking(shares[query], _DEPTH) for query, item in prepared.items()})

    def curves(self, prepared: Mapping[str, Prepared], grid: Array = GRID) -> Array:
        """The measure of each query at each dense share of the grid, shape (queries, len(grid))."""
        return np.column_stack([self.at(prepared, float(alpha)) for alpha in grid])


def examples(features: Mapping[str, Array], objective: Objective, curves: Array) -> Examples:
    """What the weight model learns from, queries in the objective's order."""
    return Examples.of([features[query] for query in objective.queries], list(curves))
