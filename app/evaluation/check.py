"""Check of a tuning on queries that its search never saw."""

from __future__ import annotations

from collections.abc import Mapping

from app.errors import StoreError
from app.evaluation.collect import Load, QueryLegs, collect, require_majority
from app.evaluation.dataset import JudgedSet
from app.evaluation.measures import Measurement, measure
from app.evaluation.ranking import normalize_all
from app.evaluation.reranked import rerank_all
from app.evaluation.scratch import ScratchIndex
from app.evaluation.target import EvaluationTarget, query_vectors
from app.search.rerank_stage import rerank_parameters
from app.search.weighting import Weight, learned_weight, model_for
from app.tuning import Tuning


class HeldOutCheck:
    """Measures tunings on the held-out part, with the service's ranking."""

    def __init__(self, judged: JudgedSet, where: EvaluationTarget, load: Load) -> None:
        self._judged, self._where, self._load = judged, where, load
        self._vectors = query_vectors(judged.queries, where.encoder)
        self.failed: dict[str, str] = {}

    def compare_tunings(
        self, current: Tuning, chosen: Tuning, scratch: ScratchIndex | None
    ) -> tuple[Measurement, Measurement]:
        """Measure both tunings over the queries that failed for neither: a failure must not count as a difference."""
        before, after = self._rankings(current, scratch), self._rankings(chosen, scratch)
        qrels = {query: judged for query, judged in self._judged.qrels.items() if query in before and query in after}
        if not qrels:
            raise StoreError(
                "every held-out query failed with one of the tunings; nothing was tuned: run the command again"
            )
        return measure(qrels, before), measure(qrels, after)

    def _rankings(self, tuning: Tuning, scratch: ScratchIndex | None) -> dict[str, list[str]]:
        if scratch is not None:
            scratch.similarity(tuning.bm25)
        found = collect(
            self._judged.queries,
            self._vectors,
            self._where,
            tuning,
            depth=tuning.candidates,
            load=self._load,
        )
        self.failed.update(found.failed)
        require_majority(found, len(self._judged.queries))
        shares = shares_in_service(tuning, self._where, found.legs)
        reranker = self._where.default_reranker
        if reranker is None:
            prepared = normalize_all(found.legs, tuning.normalization)
            return {query: item.ranking(shares[query]) for query, item in prepared.items()}
        depth, weight = rerank_parameters(self._where.settings.rerank, tuning, reranker)
        reranked = rerank_all(
            self._judged.queries, found.legs, shares, self._where, reranker, tuning, depth=depth, load=self._load
        )
        self.failed.update(reranked.failed)
        return {
            query: item.ranking(weight, depth, calibrated=reranker.calibrated)
            for query, item in reranked.queries.items()
        }


def shares_in_service(tuning: Tuning, where: EvaluationTarget, legs: Mapping[str, QueryLegs]) -> dict[str, float]:
    """Return the dense share that the service would choose for each query."""
    model = model_for(tuning, where.encoder.name, where.calibration)
    if model is None:
        return dict.fromkeys(legs, tuning.alpha)
    fixed = Weight(tuning.alpha, "tuned", "")
    return {
        query: learned_weight(model, fixed, item.query, *item.cut(tuning.candidates)).alpha
        for query, item in legs.items()
    }
