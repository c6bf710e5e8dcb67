"""A search's way: encode -> retrieve -> fuse -> rerank -> shape -> fetch. What went wrong is part of the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import Any

from app import telemetry
from app.cache.scores import ScoreCache
from app.config import Settings
from app.deadline import Deadline
from app.errors import (
    DeadlineExceeded,
    EncoderError,
    FieldProblem,
    InvalidInput,
    StoreError,
    StoreUnavailable,
)
from app.features import ALL_ON, Features
from app.passage import Hit
from app.querytext import is_distinctive, read_query
from app.search import fusion, plan
from app.search.cached_models import QueryEncoder, QueryVectors, partition_of
from app.search.fusion import Fused
from app.search.page import AS_IT_IS, Page, PageStage, shape_of
from app.search.readiness import ReadinessGate, StoreState, require_ready
from app.search.request import SearchRequest
from app.search.rerank_stage import RerankOutcome, RerankStage
from app.search.reranking import Reranker
from app.search.retrieval import (
    Degradation,
    Legs,
    Retrieval,
    Run,
    SearchCluster,
    awaited,
    counted,
    lasting,
    milliseconds,
    timed,
)
from app.search.weighting import Weight, learned_weight, model_for
from app.store import queries
from app.store.filters import Scope, clauses
from app.store.head_check import HeadCheck, Heads, VersionName
from app.store.responses import Leg
from app.tuning import Tuning, WeightModel

__all__ = ["Degradation", "QueryEncoder", "SearchCluster", "SearchResult", "SearchService"]

_BELIEVED_S = 60.0
"""For so long a cluster that can't be asked is taken to be as it was found last, which the answer states."""
_LEAST_CONFIRM_S, _CONFIRM_S = 0.005, 0.5
"""How long an answer that is ready waits for the check, at least and (where the last one was good) at most."""
_REREADS = 2
"""How often a page is read anew, at most, while documents are replaced under it."""
_DISTINCTIVE_BONUS = 1.0
"""For a passage with an identifier that can only mean one thing: more than any fused score, so that it stands first."""
_OTHER_BONUS, _OTHER_MOST = 0.2, 5
"""For any other identifier, where at most so many passages hold it."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`hits` is the page asked for, best first; `total` counts all matches; `timings` in ms, only stages that ran.

    `weight` is that of linear fusion. `folded`: passage id -> ids of near-duplicates folded into it. `highlights`:
    passage id -> field -> fragments. `corrected`: words that were matched with typing errors. `checked`: the heads of
    the documents were read.
    """

    hits: tuple[Hit, ...]
    total: int
    timings: dict[str, float]
    degraded: tuple[Degradation, ...]
    plan: plan.Plan
    tuning: Tuning
    depth: int
    weight: Weight | None = None
    rerank: RerankOutcome | None = None
    exact: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    highlights: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    checked: bool = False

    @property
    def versions(self) -> list[VersionName]:
        """The versions of documents that `hits` are of, each once."""
        return list(dict.fromkeys((hit.document_id, hit.content_hash) for hit in self.hits))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """All candidates in their order, and how it came about."""

    candidates: Sequence[Fused]
    total: int
    weight: Weight | None = None
    exact: tuple[str, ...] = ()
    rerank: RerankOutcome | None = None


class SearchService:
    """Answers searches. One instance a process; thread-safe."""

    def __init__(
        self,
        settings: Settings,
        cluster: SearchCluster,
        encoder: QueryEncoder,
        gate: ReadinessGate,
        executor: Executor,
        reranker: Reranker | None = None,
        vectors: QueryVectors | None = None,
        scores: ScoreCache | None = None,
        heads: HeadCheck | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            settings, cluster, encoder, gate, executor, reranker: what searches use.
            vectors: embeds queries; None: without a cache.
            scores: where those of cross-encoders are kept, if anywhere.
            heads: says which passages may be shown; None: all (an index that is searched alone has no heads).
        """
        self._settings = settings
        self._encoder = encoder
        self._gate = gate
        self._retrieval = Retrieval(cluster, executor)
        self._rerank = RerankStage(settings, reranker, self._retrieval, scores)
        self._pages = PageStage(self._retrieval, executor, heads)
        self._vectors = vectors or QueryVectors(encoder, reranker)

    def search(
        self, request: SearchRequest, scope: Scope, deadline: Deadline | None = None, features: Features = ALL_ON
    ) -> SearchResult:
        """Run `request` within `scope`.

        Args:
            request: as asked.
            scope: what the caller may see.
            deadline: of the whole; None: `timeout_ms` from now on.
            features: what is switched on for this request.

        Raises:
            InvalidInput: the page lies past the candidates.
            SwitchedOff: the flags leave nothing that could be searched.
            StoreNotReady, StoreUnavailable, StoreError, EncoderError (mode dense only), DeadlineExceeded.
        """
        started = time.perf_counter()
        budget = deadline or Deadline.after(request.timeout_ms or self._settings.timeout_ms)
        check = self._gate.begin()
        try:
            state = self._gate.state(check, budget.remaining_s("readiness"))
            run = Run(
                request=request,
                query=read_query(request.query),
                tuning=state.tuning,
                deadline=budget,
                filters=clauses(scope, request.filter.passage_filter()),
                depth=request.candidates or self._settings.candidates or state.tuning.candidates,
                features=features,
                partition=partition_of(scope) if request.cache else None,
                heads=Heads(scope) if self._pages.checks and state.read_only is None else None,
            )
            _check_window(run)
            if run.query.cut:
                run.degrade("lexical", "query-cut: only its first 1000 words were matched")
            chosen = plan.choose(
                request,
                wanted=self._settings.hybrid_way,
                shards=state.shards,
                native_rrf_across_shards=state.native_rrf_across_shards,
                native_linear=self._native_linear(run),
                exact=run.query.exact,
                shaped=shape_of(request) != AS_IT_IS,
                features=features,
                query=run.query,
            )
            for stage, reason in chosen.stated:
                run.degrade(stage, reason)
            result = self._read(run, chosen)
            self._confirm(run, check)
        except FutureTimeout as error:
            raise StoreUnavailable("OpenSearch did not answer within the time budget; is it overloaded?") from error
        run.timings["total_ms"] = milliseconds(started)
        telemetry.SEARCH_WAYS.labels(result.plan.way, result.plan.exit if result.plan.early else "").inc()
        for item in run.degraded:
            telemetry.DEGRADED_REQUESTS.labels(item.stage, item.reason.split(":")[0]).inc()
        return replace(result, degraded=tuple(run.degraded), timings=run.timings)

    def _confirm(self, run: Run, check: Future[StoreState]) -> None:
        """See that the store was our own while it was searched; stated where nobody could say.

        Raises:
            StoreNotReady: it was not.
        """
        left = max(_LEAST_CONFIRM_S, run.deadline.at - time.monotonic())
        believed = self._gate.known_good(_BELIEVED_S)
        try:
            require_ready(check.result(min(left, _CONFIRM_S) if believed else left))
        except (StoreUnavailable, FutureTimeout):
            if not believed:
                raise
            run.degrade("readiness", "unchecked: the cluster did not say in time whether it is as it was a moment ago")

    def _read(self, run: Run, chosen: plan.Plan) -> SearchResult:
        """The page; read anew where documents were replaced after they were ranked: their passages are others now."""
        before = tuple(run.degraded)
        result, replaced = self._read_once(run, chosen)
        for _ in range(_REREADS):
            if not replaced:
                return result
            noted, run.degraded[:] = tuple(run.degraded), before
            run.begin_again()
            try:
                result, replaced = self._read_once(run, chosen)
            except (StoreError, DeadlineExceeded) as error:
                run.degraded[:] = noted
                run.degrade("fetch", f"{error.kind}: passages were deleted while they were read")
                return result
        if replaced:
            run.degrade("fetch", "changing: passages were deleted while they were read")
        return result

    def _read_once(self, run: Run, chosen: plan.Plan) -> tuple[SearchResult, bool]:
        """The page, and whether documents were replaced meanwhile."""
        run.legs = run.deadline.part(plan.LEGS)
        with timed(run, "retrieve_ms"):
            way, found = self._rank(run, chosen)
        # a page that is shaped may show any of the candidates
        ranked, top = found, run.window if shape_of(run.request) == AS_IT_IS else len(found.candidates)
        if not way.early:
            candidates, outcome = self._rerank.apply(run, found.candidates, top)
            ranked = replace(found, candidates=candidates, rerank=outcome)
        with timed(run, "retrieve_ms"):
            page = self._pages.read(run, way.way, ranked.candidates)
            if way.way == "native" and page.short and (run.reach or run.window) < run.depth:
                run.reach = run.depth  # it gave no more than the page, of which some may not be shown
                return self._read_once(run, chosen)
            replaced = self._pages.replaced(run, found.candidates)
        return _result(run, way, ranked, page), replaced

    def _rank(self, run: Run, chosen: plan.Plan) -> tuple[plan.Plan, _Ranked]:
        if chosen.way == "lexical":
            return chosen, _single(lexical=self._retrieval.lexical(run))
        lexical = self._retrieval.start_lexical(run) if chosen.way == "legs" else None
        if lexical is not None and chosen.exit == "code" and (ended := self._exit(run, chosen, lexical)):
            return ended
        vector = self._encode(run, chosen)
        if lexical is not None and chosen.exit == "lead" and (ended := self._exit(run, chosen, lexical)):
            return ended
        if vector is None or (chosen.way != "dense" and self._too_late(run, "vector")):
            found = self._retrieval.lexical(run) if lexical is None else awaited(run, lexical)
            reason = "the query could not be embedded" if vector is None else "too little time was left"
            return plan.Plan("lexical", reason), _single(lexical=found)
        if lexical is None and chosen.way == "dense":
            return chosen, _single(dense=self._retrieval.dense(run, vector, count_outside=False))
        with timed(run, "hybrid_ms", telemetry.HYBRID_SEARCH.observe):
            if lexical is None:
                return chosen, self._native(run, vector)
            return chosen, self._fuse(run, self._retrieval.both(run, lexical, vector))

    def _exit(self, run: Run, chosen: plan.Plan, job: Future[Leg]) -> tuple[plan.Plan, _Ranked] | None:
        """The end of a search whose lexical leg says enough; None: go on, with whatever came of it."""
        try:
            found = job.result(run.deadline_of("lexical").remaining_s("lexical") * plan.EXIT_WAIT)
        except (StoreError, DeadlineExceeded, FutureTimeout):
            return None  # the other leg may answer; what is wrong is found again there
        scores = [item.score for item in found.candidates]
        ended = plan.after_lexical(chosen, run.query, scores, exact_matches(found)[1])
        return (ended, _single(lexical=found)) if ended is not None else None

    def _too_late(self, run: Run, *stages: str) -> bool:
        """Whether the dense side is left out since it has lately taken more than is left; then it is stated."""
        expected = sum(self._retrieval.times.expected_s(stage) for stage in stages)
        left = run.deadline_of("vector").at - time.monotonic()
        if expected <= left or not expected:
            return False
        run.degrade(
            "vector",
            f"deadline: {max(0, int(left * 1000))} ms were left, and it has lately taken {int(expected * 1000)} ms; "
            "only the lexical leg ran",
        )
        return True

    def _encode(self, run: Run, chosen: plan.Plan) -> list[float] | None:
        """The query's vector; None (and degraded) when a way that can go on without it has no time, or it fails."""
        needed = chosen.way == "dense"
        if not needed and self._too_late(run, "query_encode", "vector"):
            return None
        run.deadline.remaining_s("query_encode")
        try:
            with (
                timed(run, "query_encode_ms", telemetry.QUERY_ENCODE.observe),
                lasting(self._retrieval.times, "query_encode"),
                counted("query_encode"),
            ):
                vector, run.encoded = self._vectors.encode(
                    run.request.query,
                    reranked=self._rerank.wanted(run),
                    partition=run.partition if run.features.embedding_cache else None,
                )
                found: list[float] = vector.tolist()
                return found
        except EncoderError:
            if needed:
                raise
            run.degrade("vector", "encoder-failed: only the lexical leg ran")
            return None

    def _fuse(self, run: Run, legs: Legs) -> _Ranked:
        left, right = (legs.lexical.candidates if legs.lexical else ()), (legs.dense.candidates if legs.dense else ())
        bonus, exact = exact_matches(legs.lexical)
        if run.request.fusion.method == "rrf":
            fused = fusion.fuse_rrf(left, right, self._settings.rrf_rank_constant, bonus=bonus)
            return _Ranked(fused, legs.total, exact=exact)
        weight = self._fixed_weight(run)
        model = self._model(run)
        if model is None and run.request.fusion.learned:
            reason = "no-model: no weight model fits the embedding model and normalisation"
            if not run.features.learned_fusion:
                reason = "switched-off: the flag learned_fusion is off, the weight is fixed"
            run.degrade("fusion", reason)
        if model is not None:
            weight = learned_weight(model, weight, run.query, left, right)
        telemetry.FUSION_WEIGHTS.labels(weight.source).inc()
        telemetry.FUSION_DENSE_SHARE.observe(weight.alpha)
        technique = run.request.fusion.normalization or run.tuning.normalization
        fused = fusion.fuse_linear(left, right, weight.alpha, normalization=technique, bonus=bonus)
        return _Ranked(fused, legs.total, weight, exact)

    def _native(self, run: Run, vector: list[float]) -> _Ranked:
        weight = None
        inline: dict[str, Any] | None = None
        pipeline: str | None = queries.RRF_PIPELINE
        if run.request.fusion.method == "linear":
            weight = self._fixed_weight(run)
            asked = weight.source == "request"
            if weight.source in ("tuned", "default"):  # the pipeline has the best weight of its own normalisation
                weight = replace(weight, alpha=run.tuning.native_alpha)
            inline = queries.linear_pipeline(weight.alpha) if asked else None
            pipeline = None if asked else queries.LINEAR_PIPELINE
        found = self._retrieval.native(run, vector, pipeline=pipeline, inline=inline)
        run.passages |= {hit.id: hit for hit in found.hits}
        ranked = [Fused(hit.id, hit.document_id, hit.score) for hit in found.hits]
        return _Ranked(ranked, found.total, weight)

    def _fixed_weight(self, run: Run) -> Weight:
        asked = run.request.fusion.alpha
        if asked is not None:
            return Weight(asked, "request", "the request names it")
        if self._settings.alpha is not None:
            return Weight(self._settings.alpha, "setting", "BRAID_ALPHA")
        if run.tuning.version:
            return Weight(run.tuning.alpha, "tuned", f"tuning {run.tuning.version}")
        return Weight(run.tuning.alpha, "default", "nothing has been tuned")

    def _model(self, run: Run) -> WeightModel | None:
        """The model that predicts this query's weight; None where a fixed one was asked for, set, or nothing fits."""
        asked = run.request.fusion
        fixed = asked.alpha is not None or self._settings.alpha is not None
        wanted = asked.learned if asked.learned is not None else self._settings.learned_fusion and not fixed
        if (
            not run.features.learned_fusion
            or not wanted
            or asked.method == "rrf"
            or asked.normalization not in (None, run.tuning.normalization)
        ):
            return None
        return model_for(run.tuning, self._encoder.name)

    def _native_linear(self, run: Run) -> bool:
        """Whether a search pipeline of the cluster gives the weight and normalisation that this request needs."""
        technique = run.request.fusion.normalization or run.tuning.normalization
        return technique == "min_max" and self._model(run) is None


def _result(run: Run, chosen: plan.Plan, ranked: _Ranked, page: Page) -> SearchResult:
    return SearchResult(
        page.hits,
        ranked.total,
        {},
        (),
        chosen,
        run.tuning,
        run.depth,
        ranked.weight,
        ranked.rerank,
        ranked.exact,
        run.corrected,
        page.folded,
        page.highlights,
        run.heads is not None,
    )


def _single(*, lexical: Leg | None = None, dense: Leg | None = None) -> _Ranked:
    """One leg's candidates in their order, exact matches of identifiers first."""
    leg = lexical or dense
    assert leg is not None  # noqa: S101 - one is given
    bonus, exact = exact_matches(lexical)
    return _Ranked(fusion.rank_alone(leg.candidates, "lexical" if lexical else "dense", bonus), leg.total, exact=exact)


def exact_matches(lexical: Leg | None) -> tuple[dict[str, float], tuple[str, ...]]:
    """What each passage gains for identifiers that it holds as they are written, and which identifiers counted."""
    bonus: dict[str, float] = {}
    counted_codes = []
    for code, (count, ids) in (lexical.exact if lexical else {}).items():
        distinctive = is_distinctive(code)
        if 0 < count <= (queries.MOST_EXACT if distinctive else _OTHER_MOST):
            counted_codes.append(code)
            for key in ids:
                bonus[key] = bonus.get(key, 0.0) + (_DISTINCTIVE_BONUS if distinctive else _OTHER_BONUS)
    return bonus, tuple(counted_codes)


def _check_window(run: Run) -> None:
    if run.window > run.depth:
        message = (
            f"from + size = {run.window} reaches past the {run.depth} candidates that are ranked; "
            f"ask for less, or for more `candidates` (at most 1000)"
        )
        raise InvalidInput(message, problems=[FieldProblem(("body", "size"), message)])
