"""The rerank stage of a search: whether it runs, on how many candidates, in what time; and what was left out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from app import telemetry
from app.cache.scores import ScoreCache
from app.config.retrieval import RerankSettings
from app.deadline import Deadline
from app.degradation import Reason
from app.errors import DeadlineExceeded, EncoderError, RerankerError
from app.search.cached_models import add_score_cache
from app.search.fusion import FusedCandidate
from app.search.page import is_unshaped
from app.search.plan import RERANK
from app.search.request import RerankRequest
from app.search.reranking import Goal, Reranker, RerankResult, Subject, is_decisive, rerank
from app.search.retrieval import Retrieval
from app.search.stages import Passages, Ranking, RerankOutcome, SearchCall
from app.search.trace import Trace
from app.tuning import Tuning

_A_PASSAGE = "rerank of a passage"
_MIN_PASSAGES = 5
"""Minimum number of passages to rerank; below it none are."""


class RerankStage:
    """Reranks the candidates of searches. Thread-safe."""

    def __init__(
        self, options: RerankSettings, reranker: Reranker | None, retrieval: Retrieval, scores: ScoreCache | None = None
    ) -> None:
        """Create the stage; `scores` caches those of cross-encoders; None: no cache."""
        self._options = options
        self._scores = scores
        self._reranker = reranker
        self._retrieval = retrieval

    def depth(self, call: SearchCall) -> int:
        """Return how many candidates are to be reranked; 0: none."""
        if self._reranker is None or not is_rerank_wanted(self._options, call):
            return 0
        return self._parameters(call, self._reranker)[0]

    def _parameters(self, call: SearchCall, reranker: Reranker) -> tuple[int, float]:
        depth, weight = rerank_parameters(self._options, call.tuning, reranker, call.request.reranking)
        return min(depth, call.depth), weight

    def rerank(self, ranking: Ranking, call: SearchCall, trace: Trace) -> Ranking:
        """Return the candidates in the reranker's order, as far as it got; degraded if that was less than intended.

        Raises:
            StoreError, DeadlineExceeded: the passages could not be read.
        """
        if ranking.found.plan.early:
            return ranking
        request, candidates = call.request, ranking.order
        if not call.features.rerank and request.rerank:
            trace.degrade("rerank", Reason.SWITCHED_OFF, "the flag rerank is off, results keep their fused order")
        if not is_rerank_wanted(self._options, call) or not candidates:
            return ranking
        if self._reranker is None:
            if request.rerank:
                trace.degrade("rerank", Reason.NOT_CONFIGURED, "no reranker is set up, results keep their fused order")
            return ranking
        depth, weight = self._parameters(call, self._reranker)
        head, tail = candidates[:depth], candidates[depth:]
        outcome = RerankOutcome(self._reranker.name, weight, 0, len(head), "decisive")
        margin = self._options.skip_margin
        if margin is not None and call.request.rerank is None and is_decisive(candidates, margin):
            return replace(ranking, rerank=outcome)
        if self._too_late(call, trace, head):
            return ranking
        with trace.timed("retrieve_ms"):
            ids = [item.id for item in head]
            subjects, passages = read_subjects(self._retrieval, call, trace, ranking.passages, ids, self._reranker)
        head = [item for item in head if item.id in subjects]
        # a shaped page may show any of the candidates
        top = call.window if is_unshaped(request) else len(candidates)
        goal = Goal(top, weight, call.request.reranking.threshold)
        with trace.timed("rerank_ms", telemetry.RERANK.observe):
            started = time.perf_counter()
            found = self._score(call, self._reranker, ranking.found.encoded, subjects, head, tail, goal)
            if found.scored:
                self._retrieval.times.note(_A_PASSAGE, (time.perf_counter() - started) / found.scored)
        for reason, detail in _degradations(found, goal, self._reranker):
            trace.degrade("rerank", reason, detail)
        if found.stopped == "error":
            telemetry.RERANK_ERRORS.inc()
        telemetry.STAGE_REQUESTS.labels("rerank", "error" if found.stopped == "error" else "ok").inc()
        telemetry.RERANK_STOPS.labels(found.stopped).inc()
        # a server reports its model's name when first reached
        outcome = replace(outcome, reranker=self._reranker.name)
        outcome = replace(outcome, scored=found.scored, of=found.of, stopped=found.stopped)
        return replace(ranking, order=found.candidates, rerank=outcome, passages=passages)

    def _too_late(self, call: SearchCall, trace: Trace, head: Sequence[FusedCandidate]) -> bool:
        """Return whether too little time is left to read the passages and score a few of them; record that."""
        times = self._retrieval.times
        expected = times.expected_s("fetch") + times.expected_s(_A_PASSAGE) * min(_MIN_PASSAGES, len(head))
        left = (call.deadline.at - time.monotonic()) * RERANK
        if expected <= left or not expected:
            return False
        telemetry.RERANK_STOPS.labels("deadline").inc()
        trace.degrade(
            "rerank",
            Reason.DEADLINE,
            f"{max(0, int(left * 1000))} ms were left for it, which is less than it has lately needed for the first "
            "passages; results keep their fused order",
        )
        return True

    def _score(
        self,
        call: SearchCall,
        reranker: Reranker,
        encoded: object | None,
        subjects: Mapping[str, Subject],
        head: Sequence[FusedCandidate],
        tail: Sequence[FusedCandidate],
        goal: Goal,
    ) -> RerankResult:
        try:
            left_ms = call.deadline.remaining_s("rerank") * RERANK * 1000
            budget = Deadline.after(max(1, int(min(left_ms, self._options.budget_ms))))
            partition = call.partition if call.features.rerank_cache else None
            begun = reranker.begin(call.request.query, encoded)
            scoring = add_score_cache(begun, self._scores, reranker, call.request.query, partition)
        except (DeadlineExceeded, EncoderError, RerankerError) as error:
            return RerankResult([*head, *tail], 0, len(head), "error", error.kind)
        wanted = [subjects[item.id] for item in head]
        return rerank(head, tail, wanted, scoring, goal, calibrated=reranker.calibrated, deadline=budget)


def read_subjects(
    retrieval: Retrieval, call: SearchCall, trace: Trace, passages: Passages, ids: Sequence[str], reranker: Reranker
) -> tuple[dict[str, Subject], Passages]:
    """Return what `reranker` scores, by id, and `passages` with those that were read.

    Only the token vectors where those suffice: a page shows few of the candidates, and reads the texts of those.

    Raises:
        StoreError, DeadlineExceeded.
    """
    tokens = retrieval.read_tokens(call, trace, ids) if reranker.reads_tokens else {}
    enough = {key for key, packed in tokens.items() if reranker.reads(packed)}
    passages = retrieval.read(call, trace, passages, [key for key in ids if key not in enough])
    there = [key for key in ids if key in enough or key in passages.hits]
    return {key: Subject(passages.hits.get(key), tokens.get(key)) for key in there}, passages


def is_rerank_wanted(options: RerankSettings, call: SearchCall) -> bool:
    """Return whether the request is to be reranked, explicitly or by default."""
    if not call.features.rerank:
        return False
    asked = call.request.rerank
    if asked is None:
        return options.default and call.request.mode == "hybrid"
    return asked is not False


def rerank_parameters(
    options: RerankSettings,
    tuning: Tuning,
    reranker: Reranker,
    asked: RerankRequest = RerankRequest(),  # noqa: B008 - frozen
) -> tuple[int, float]:
    """Return depth and weight: from the request, else the settings, else the tuning for this reranker, else its own."""
    tuned = tuning.rerank if tuning.rerank is not None and tuning.rerank.reranker == reranker.name else None
    depths = (asked.depth, options.depth, tuned.depth if tuned else None, reranker.depth)
    weights = (asked.weight, options.weight, tuned.weight if tuned else None, reranker.weight)
    return (
        next(value for value in depths if value is not None),
        next(value for value in weights if value is not None),
    )


def _degradations(found: RerankResult, goal: Goal, reranker: Reranker) -> Iterator[tuple[Reason, str]]:
    """Yield reasons and details if the stage did less than intended."""
    share = f"{found.scored} of {found.of} were reranked, the others keep their fused order behind them"
    if found.stopped == "deadline":
        yield Reason.DEADLINE, share
    if found.stopped == "error":
        yield Reason.of(found.problem), share if found.scored else "results keep their fused order"
    if goal.threshold is not None and not reranker.calibrated:
        yield Reason.NO_THRESHOLD, "the scores of this reranker are no probabilities, so all were reranked"
