"""The first stage of a search: embed the query and search the legs, within the plan and the remaining time."""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace

from app import telemetry
from app.config.retrieval import RerankSettings
from app.degradation import Reason
from app.errors import DeadlineExceeded, EncoderError, StoreError
from app.search import plan
from app.search.cached_models import QueryVectors
from app.search.fusion_stage import exact_matches
from app.search.plan import Plan
from app.search.rerank_stage import is_rerank_wanted
from app.search.retrieval import Retrieval, record_time, wait_for
from app.search.stages import Candidates, NativeFusion, SearchCall
from app.search.trace import Trace, count_stage
from app.store.responses import Leg

_ENCODE = 0.5
"""Share of the remaining time for an encoder elsewhere, so that the lexical leg can still be answered with."""


class CandidateStage:
    """Finds the candidates of searches. Thread-safe."""

    def __init__(self, rerank: RerankSettings, retrieval: Retrieval, vectors: QueryVectors) -> None:
        """Create the stage; `vectors` embeds the queries."""
        self._rerank = rerank
        self._retrieval = retrieval
        self._vectors = vectors

    def retrieve(self, call: SearchCall, chosen: Plan, trace: Trace, native: NativeFusion | None) -> Candidates:
        """Return the legs' results. The result's plan is the one that was carried out.

        Args:
            chosen: the plan to start with.
            native: fusion of a native request; None: the plan is another.

        Raises:
            StoreError, DeadlineExceeded: the legs failed.
            EncoderError: mode dense only.
        """
        if chosen.way == "lexical":
            return self._of_lexical(call, trace, chosen, self._retrieval.lexical(call, trace))
        # the lexical leg runs while the query is embedded
        lexical = self._retrieval.start_lexical(call, trace) if chosen.way == "legs" else None
        if lexical is not None and chosen.exit == "code" and (ended := self._exit(call, trace, chosen, lexical)):
            return ended
        vector, encoded = self._encode(call, chosen, trace)
        if lexical is not None and chosen.exit == "lead" and (ended := self._exit(call, trace, chosen, lexical)):
            return ended
        if vector is None or (chosen.way != "dense" and self._too_late(call, trace, "vector")):
            leg = self._retrieval.lexical(call, trace) if lexical is None else wait_for(call, lexical)
            reason = "the query could not be embedded" if vector is None else "too little time was left"
            return self._of_lexical(call, trace, Plan("lexical", reason), leg, encoded)
        if chosen.way == "dense":
            dense = self._retrieval.dense(call, trace, vector)
            return Candidates(chosen, dense.total, dense=dense, encoded=encoded)
        with trace.timed("hybrid_ms", telemetry.HYBRID_SEARCH.observe):
            if lexical is not None:
                legs = self._retrieval.both(call, trace, lexical, vector)
                total = self._retrieval.total(call, trace, legs.lexical, legs.dense)
                if legs.lexical is None or legs.dense is None:  # the leg that failed may match others
                    total = replace(total, relation="gte")
                return Candidates(chosen, total, legs.lexical, legs.dense, encoded=encoded)
            assert native is not None  # noqa: S101 - no other way is left
            found = self._retrieval.native(call, trace, vector, native.pipeline)
            return Candidates(chosen, found.total, native=found.hits, native_weight=native.weight, encoded=encoded)

    def _exit(self, call: SearchCall, trace: Trace, chosen: Plan, job: Future[Leg]) -> Candidates | None:
        """Return the candidates if the lexical leg alone suffices; None: continue, whatever its outcome."""
        try:
            found = job.result(call.deadline_of("lexical").remaining_s("lexical") * plan.EXIT_WAIT)
        except (StoreError, DeadlineExceeded, FutureTimeout):
            return None  # the other leg may answer; the error is raised again there
        scores = [item.score for item in found.candidates]
        ended = plan.after_lexical(chosen, call.query, scores, exact_matches(found)[1])
        return self._of_lexical(call, trace, ended, found) if ended is not None else None

    def _too_late(self, call: SearchCall, trace: Trace, *stages: str) -> bool:
        """Return whether the dense side is skipped because it recently took more time than is left; record that."""
        expected = sum(self._retrieval.times.expected_s(stage) for stage in stages)
        left = call.deadline_of("vector").at - time.monotonic()
        if expected <= left or not expected:
            return False
        trace.degrade(
            "vector",
            Reason.DEADLINE,
            f"{max(0, int(left * 1000))} ms were left, and it has lately taken {int(expected * 1000)} ms; "
            "only the lexical leg ran",
        )
        return True

    def _encode(self, call: SearchCall, chosen: Plan, trace: Trace) -> tuple[list[float] | None, object | None]:
        """Return the query's vector and the reranker's part of the same inference.

        The vector is None (and the search degraded) if the plan can do without it, and the time is too short or
        embedding fails.
        """
        needed = chosen.way == "dense"
        if not needed and self._too_late(call, trace, "query_encode", "vector"):
            return None, None
        call.deadline.remaining_s("query_encode")
        try:
            with (
                trace.timed("query_encode_ms", telemetry.QUERY_ENCODE.observe),
                record_time(self._retrieval.times, "query_encode"),
                count_stage("query_encode"),
            ):
                vector, encoded = self._vectors.encode(
                    call.request.query,
                    reranked=is_rerank_wanted(self._rerank, call),
                    partition=call.partition if call.features.embedding_cache else None,
                    deadline=call.deadline_of("vector").part(_ENCODE),
                )
                found: list[float] = vector.tolist()
                return found, encoded
        except EncoderError:
            if needed:
                raise
            trace.degrade("vector", Reason.ENCODER_FAILED, "only the lexical leg ran")
            return None, None

    def _of_lexical(
        self, call: SearchCall, trace: Trace, chosen: Plan, found: Leg, encoded: object | None = None
    ) -> Candidates:
        total = self._retrieval.total(call, trace, found, None)
        return Candidates(chosen, total, lexical=found, encoded=encoded)
