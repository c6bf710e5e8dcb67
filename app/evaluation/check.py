"""How a tuning fares on queries that its search never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.errors import StoreError
from app.evaluation.collect import Load, QueryLegs, collect, require_most
from app.evaluation.dataset import JudgedSet
from app.evaluation.measures import Measured, measure
from app.evaluation.objective import MeasureName
from app.evaluation.ranking import prepare_all
from app.evaluation.reranked import rerank_all
from app.evaluation.scratch import Scratch
from app.evaluation.where import Where, query_vectors
from app.passage import Candidate
from app.search.rerank_stage import rerank_parameters
from app.search.weighting import Weight, learned_weight, model_for
from app.tuning import Tuning


class Check:
    """Measures tunings on the held-out part, as the service would answer."""

    def __init__(self, judged: JudgedSet, where: Where, measure_name: MeasureName, load: Load) -> None:
        self._judged, self._where, self._load = judged, where, load
        self._vectors = query_vectors(judged.queries, where.encoder)
        self.failed: dict[str, str] = {}

    def compared(self, current: Tuning, chosen: Tuning, scratch: Scratch | None) -> tuple[Measured, Measured]:
        """Both over the queries that neither failed for: a failure is no difference between them."""
        before, after = self._rankings(current, scratch), self._rankings(chosen, scratch)
        qrels = {query: judged for query, judged in self._judged.qrels.items() if query in before and query in after}
        if not qrels:
            raise StoreError("each held-out query failed before or after; nothing was tuned, run it again")
        return measure(qrels, before), measure(qrels, after)

    def _rankings(self, tuning: Tuning, scratch: Scratch | None) -> dict[str, list[str]]:
        if scratch is not None:
            scratch.similarity(tuning.bm25)
        found = collect(
            self._judged.queries,
            self._vectors,
            cluster=self._where.cluster,
            tenant=self._where.tenant,
            tuning=tuning,
            depth=tuning.candidates,
            load=self._load,
            ignore_identical=self._where.ignore_identical,
        )
        self.failed.update(found.failed)
        require_most(found, len(self._judged.queries))
        shares = shares_in_service(tuning, self._where, found.legs)
        reranker = self._where.default_reranker
        if reranker is None:
            prepared = prepare_all(found.legs, tuning.normalization)
            return {query: item.ranking(shares[query]) for query, item in prepared.items()}
        depth, weight = rerank_parameters(self._where.settings, tuning, reranker)
        reranked = rerank_all(
            self._judged.queries, found.legs, shares, self._where, reranker, tuning, depth=depth, load=self._load
        )
        self.failed.update(reranked.failed)
        return {
            query: item.ranking(weight, depth, calibrated=reranker.calibrated)
            for query, item in reranked.queries.items()
        }


def shares_in_service(tuning: Tuning, where: Where, legs: Mapping[str, QueryLegs]) -> dict[str, float]:
    """The dense share of each query, as the service would choose it."""
    model = model_for(tuning, where.encoder.name)
    if model is None:
        return dict.fromkeys(legs, tuning.alpha)
    fixed = Weight(tuning.alpha, "tuned", "")
    return {
        query: learned_weight(model, fixed, item.query, *cut_at(item, tuning)).alpha for query, item in legs.items()
    }


def cut_at(legs: QueryLegs, tuning: Tuning) -> tuple[Sequence[Candidate], Sequence[Candidate]]:
    """A query's legs as deep as the tuning has them."""
    return legs.cut(tuning.candidates)
