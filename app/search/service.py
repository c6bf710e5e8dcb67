"""Searches of the service: planned, taken through their stages, with the store confirmed to be our own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace

from app import telemetry
from app.cache.scores import ScoreCache
from app.config import Settings
from app.deadline import Deadline
from app.degradation import Degradation, Reason
from app.embedding.text_encoder import TextEncoder
from app.errors import FieldProblem, InvalidInput, StoreUnavailable
from app.features import ALL_ON, Features
from app.passage import Hit
from app.querytext import read_query
from app.search import plan
from app.search.cached_models import QueryVectors, partition_of
from app.search.fusion_stage import native_normalization
from app.search.pipeline import Pipeline
from app.search.readiness_gate import ReadinessGate, StoreState, require_ready
from app.search.request import SearchRequest
from app.search.reranking import Reranker
from app.search.stages import RerankOutcome, ResultPage, SearchCall
from app.search.trace import Trace
from app.search.weighting import Weight
from app.store.client import Cluster, TooManyClauses
from app.store.filters import Scope, clauses
from app.store.head_check import HeadCheck, VersionName
from app.store.languages import QueryFields
from app.store.responses import Total
from app.tuning import Normalization, Tuning

_READINESS_GRACE_S = 60.0
"""Seconds for which an unresponsive cluster is assumed unchanged; the answer reports it."""
_LEAST_TERMS = 16
"""Number of words from which on a query is not cut further for a cluster that takes few clauses."""
_LEAST_CONFIRM_S, _CONFIRM_S = 0.005, 0.5
"""Seconds that a finished answer waits for the check: minimum, and (if the last check was good) maximum."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Result of a search: `hits` is the requested page, best first; `total` counts the matches; `timings` in ms, only
    stages that ran.

    `weight` and `normalization` are those of linear fusion. `folded`: passage id -> ids of near-duplicates folded into
    it. `highlights`: passage id -> field -> fragments. `corrected`: words that were matched with typing errors,
    `accents`: in other accents or another width. `stop_words`: the query was matched as one of stop words alone.
    `checked`: whether the heads of the documents were read.
    """

    hits: tuple[Hit, ...]
    total: Total
    timings: dict[str, float]
    degraded: tuple[Degradation, ...]
    plan: plan.Plan
    tuning: Tuning
    depth: int
    weight: Weight | None = None
    normalization: Normalization = "min_max"
    rerank: RerankOutcome | None = None
    exact: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    accents: tuple[str, ...] = ()
    stop_words: bool = False
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    highlights: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    checked: bool = False

    @property
    def versions(self) -> list[VersionName]:
        """Versions of the documents of `hits`, each once."""
        return list(dict.fromkeys((hit.document_id, hit.content_hash) for hit in self.hits))


class SearchService:
    """Answers searches. One instance per process; thread-safe."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        encoder: TextEncoder,
        gate: ReadinessGate,
        executor: Executor,
        reranker: Reranker | None = None,
        vectors: QueryVectors | None = None,
        scores: ScoreCache | None = None,
        heads: HeadCheck | None = None,
    ) -> None:
        """Create the service; nothing is sent yet.

        Args:
            vectors: embeds queries; None: no cache.
            scores: cache of cross-encoders' scores, if any.
            heads: decides which passages are visible; None: all (an index outside the alias has no heads).
        """
        self._settings = settings
        self._fields = QueryFields(settings.index)
        self._gate = gate
        self._pipeline = Pipeline(settings, cluster, encoder, executor, reranker, vectors, scores, heads)

    def search(
        self, request: SearchRequest, scope: Scope, deadline: Deadline | None = None, features: Features = ALL_ON
    ) -> SearchResult:
        """Run `request` within `scope`.

        Args:
            deadline: deadline of the search; None: `timeout_ms` from now on.

        Raises:
            InvalidInput: the page lies beyond the candidates.
            FeatureDisabled: the flags disable all legs.
            StoreNotReady, StoreUnavailable, StoreError, EncoderError (mode dense only), DeadlineExceeded.
        """
        trace = Trace()
        budget = deadline or Deadline.after(request.timeout_ms or self._settings.search.timeout_ms)
        check = self._gate.begin()
        try:
            state = self._gate.state(check, budget.remaining_s("readiness"))
            call = self._call(request, scope, budget, features, state)
            call, page = self._find(call, state, trace)
            self._confirm(call, trace, check)
        except FutureTimeout as error:
            raise StoreUnavailable("OpenSearch did not answer within the time budget: check its load") from error
        trace.finish()
        return _result(call, page, trace)

    def _call(
        self, request: SearchRequest, scope: Scope, deadline: Deadline, features: Features, state: StoreState
    ) -> SearchCall:
        """Return the call within its limits. Raises InvalidInput if the page lies beyond the candidates."""
        call = SearchCall(
            request=request,
            query=read_query(request.query, self._fields.of(request.query, state.text_fields)),
            tuning=state.tuning,
            deadline=deadline,
            filters=clauses(scope, request.filter.passage_filter()),
            depth=request.candidates or self._settings.search.candidates or state.tuning.candidates,
            features=features,
            partition=partition_of(scope) if request.cache else None,
            lexical_factor=state.lexical_factor,
            checked_for=scope if self._pipeline.checks_heads and state.read_only is None else None,
        )
        if call.window > call.depth:
            message = (
                f"from + size = {call.window} reaches past the {call.depth} candidates that are ranked; "
                f"request less, or more `candidates` (at most 1000)"
            )
            raise InvalidInput(message, problems=[FieldProblem(("body", "size"), message)])
        return call

    def _find(self, call: SearchCall, state: StoreState, trace: Trace) -> tuple[SearchCall, ResultPage]:
        """Return the page, and the call with as many of its words as the cluster takes. Raises as `search`."""
        try:
            return call, self._pipeline.find_page(call, self._plan(call, state, trace), trace)
        except TooManyClauses:
            if call.query.terms <= _LEAST_TERMS:
                raise
            trace.rewind(())
            query = read_query(call.request.query, call.query.fields, call.query.terms // 2)
            return self._find(replace(call, query=query), state, trace)

    def _plan(self, call: SearchCall, state: StoreState, trace: Trace) -> plan.Plan:
        """Return the plan. Raises FeatureDisabled."""
        if call.query.cut:
            trace.degrade("lexical", Reason.QUERY_CUT, f"only its {call.query.terms} longest words were matched")
        chosen = plan.choose(
            call.request,
            wanted=self._settings.search.hybrid_way,
            shards=state.shards,
            native_rrf_across_shards=state.native_rrf_across_shards,
            native_linear=self._pipeline.is_native_linear(call),
            exact=call.query.exact,
            features=call.features,
            query=call.query,
        )
        for stage, reason in chosen.stated:
            trace.state(Degradation(stage, reason))
        return chosen

    def _confirm(self, call: SearchCall, trace: Trace, check: Future[StoreState]) -> None:
        """Confirm that the store was our own during the search; degrade if that is unknown.

        Raises:
            StoreNotReady: the store was not our own.
        """
        left = max(_LEAST_CONFIRM_S, call.deadline.at - time.monotonic())
        believed = self._gate.is_known_good(_READINESS_GRACE_S)
        try:
            require_ready(check.result(min(left, _CONFIRM_S) if believed else left))
        except (StoreUnavailable, FutureTimeout):
            if not believed:
                raise
            trace.degrade(
                "readiness", Reason.UNCHECKED, "the cluster did not say in time whether it is as it was a moment ago"
            )


def _result(call: SearchCall, page: ResultPage, trace: Trace) -> SearchResult:
    """Return the result and update the metrics."""
    ranking, chosen, degraded = page.ranking, page.ranking.found.plan, trace.degraded
    telemetry.SEARCH_WAYS.labels(chosen.way, chosen.exit if chosen.early else "").inc()
    for item in degraded:
        telemetry.DEGRADED_REQUESTS.labels(item.stage, item.reason.split(":")[0]).inc()
    return SearchResult(
        hits=page.hits,
        total=ranking.found.total,
        timings=trace.timings,
        degraded=degraded,
        plan=chosen,
        tuning=call.tuning,
        depth=call.depth,
        weight=ranking.weight,
        normalization=(
            native_normalization(call.request)
            if chosen.way == "native"
            else call.request.fusion.normalization or call.tuning.normalization
        ),
        rerank=ranking.rerank,
        exact=ranking.exact,
        corrected=ranking.found.corrected,
        accents=ranking.found.lexical.folded if ranking.found.lexical is not None else (),
        stop_words=ranking.found.lexical.stop_words if ranking.found.lexical is not None else call.query.stop_words,
        folded=page.folded,
        highlights=page.highlights,
        checked=call.checked_for is not None,
    )
