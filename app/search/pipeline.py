"""The conductor of a search: retrieve, fuse, rerank, build the page; repeated if documents were replaced meanwhile."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace

from app.cache.scores import ScoreCache
from app.config import Settings
from app.degradation import Reason
from app.embedding.text_encoder import TextEncoder
from app.errors import DeadlineExceeded, StoreError
from app.search.cached_models import QueryVectors
from app.search.candidates import CandidateStage
from app.search.fusion_stage import FusionStage
from app.search.page import PageStage, is_unshaped
from app.search.plan import Plan
from app.search.rerank_stage import RerankStage
from app.search.reranking import Reranker
from app.search.retrieval import Retrieval
from app.search.stages import ResultPage, SearchCall
from app.search.trace import Trace
from app.store.client import Cluster
from app.store.head_check import HeadCheck, Heads

_REREADS = 2
"""Maximum number of repetitions while documents keep being replaced."""


class Pipeline:
    """Takes a search through its stages. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        encoder: TextEncoder,
        executor: Executor,
        reranker: Reranker | None = None,
        vectors: QueryVectors | None = None,
        scores: ScoreCache | None = None,
        heads: HeadCheck | None = None,
    ) -> None:
        """Create the pipeline; arguments as those of `SearchService`."""
        retrieval = Retrieval(cluster, executor)
        self._candidates = CandidateStage(settings.rerank, retrieval, vectors or QueryVectors(encoder, reranker))
        self._fusion = FusionStage(settings, encoder)
        self._rerank = RerankStage(settings.rerank, reranker, retrieval, scores)
        self._pages = PageStage(retrieval, executor, heads)

    @property
    def checks_heads(self) -> bool:
        """Return whether the heads of documents decide what is shown."""
        return self._pages.checks

    def is_native_linear(self, call: SearchCall) -> bool:
        """Return whether a search pipeline of the cluster provides the weight and normalisation of this request."""
        return self._fusion.is_native_linear(call)

    def find_page(self, call: SearchCall, plan: Plan, trace: Trace) -> ResultPage:
        """Return the requested page, by the way of `plan`.

        It is read again if documents were replaced after they were ranked, because their passages have changed.

        Raises:
            StoreError, EncoderError (mode dense only), DeadlineExceeded.
        """
        heads = Heads(call.checked_for) if call.checked_for is not None else None
        before = trace.degraded
        page, call = self._read(call, plan, heads, trace)
        for _ in range(_REREADS):
            if not page.outdated:
                return page
            noted = trace.degraded
            trace.rewind(before)
            if heads is not None:
                heads.restart()
            try:
                # from now on, all requests go to the primary shards
                page, call = self._read(replace(call, same_copies="_primary"), plan, heads, trace)
            except (StoreError, DeadlineExceeded) as error:
                trace.rewind(noted)
                trace.degrade("fetch", Reason.of(error.kind), "passages were deleted while they were read")
                return page
        if page.outdated:
            trace.degrade("fetch", Reason.CHANGING, "passages were deleted while they were read")
        return page

    def _read(self, call: SearchCall, plan: Plan, heads: Heads | None, trace: Trace) -> tuple[ResultPage, SearchCall]:
        """Return the page, read once, and the call with the reach that was needed."""
        call = replace(call, legs=call.leg_deadline())
        native = None
        if plan.way == "native":
            call = replace(call, reach=call.reach or self._reach(call))
            native = self._fusion.native_fusion(call)
        with trace.timed("retrieve_ms"):
            found = self._candidates.retrieve(call, plan, trace, native)
            ranking = self._fusion.fuse(found, call, trace)
        ranking = self._rerank.rerank(ranking, call, trace)
        with trace.timed("retrieve_ms"):
            page = self._pages.build(ranking, call, heads, trace)
            deeper = found.native is not None and page.short and call.reach < call.depth
            if not deeper:
                return replace(page, outdated=self._pages.is_outdated(page, call, heads, trace)), call
        # the cluster returned just the page, and some of it is hidden
        return self._read(replace(call, reach=call.depth), plan, heads, trace)

    def _reach(self, call: SearchCall) -> int:
        """Return how many candidates the native way must return for the page and the reranker."""
        return max(call.window, self._rerank.depth(call)) if is_unshaped(call.request) else call.depth
