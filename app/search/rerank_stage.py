"""A search's rerank stage: whether it runs, on how many candidates, with what share and time; what it had to leave."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app import telemetry
from app.cache.scores import ScoreCache
from app.config import Settings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, RerankerError
from app.search.cached_models import with_score_cache
from app.search.fusion import Fused
from app.search.plan import RERANK
from app.search.request import RerankRequest
from app.search.reranking import Goal, Reranked, Reranker, Stop, Subject, decisive, rerank
from app.search.retrieval import Retrieval, Run, timed
from app.tuning import Tuning

_A_PASSAGE = "rerank of a passage"
_A_FEW = 5
"""Passages that are worth reranking alone."""


@dataclass(frozen=True, slots=True)
class RerankOutcome:
    """What the reranker did: `scored` of the first `of` candidates, blended in by `weight`, and why it `stopped`."""

    reranker: str
    weight: float
    scored: int
    of: int
    stopped: Stop | Literal["decisive"]


class RerankStage:
    """Reranks the candidates of searches. Thread-safe."""

    def __init__(
        self, settings: Settings, reranker: Reranker | None, retrieval: Retrieval, scores: ScoreCache | None = None
    ) -> None:
        """`scores` are those that a cross-encoder gave before; None: none are kept."""
        self._settings = settings
        self._scores = scores
        self._reranker = reranker
        self._retrieval = retrieval

    def wanted(self, run: Run) -> bool:
        """Whether the request is to be reranked, by its own word or by default."""
        if not run.features.rerank:
            return False
        asked = run.request.rerank
        if asked is None:
            return self._settings.rerank_default and run.request.mode == "hybrid"
        return asked is not False

    def apply(self, run: Run, candidates: Sequence[Fused], top: int) -> tuple[Sequence[Fused], RerankOutcome | None]:
        """The candidates in the reranker's order, as far as it got; degraded where that was not as far as meant.

        Args:
            run: of the search.
            candidates: best first.
            top: how many of them must be in their right place.

        Raises:
            StoreError, DeadlineExceeded: the passages could not be read.
        """
        if not run.features.rerank and run.request.rerank:
            run.degrade("rerank", "switched-off: the flag rerank is off, results keep their fused order")
        if not self.wanted(run) or not candidates:
            return candidates, None
        if self._reranker is None:
            if run.request.rerank:
                run.degrade("rerank", "not-configured: no reranker is set up, results keep their fused order")
            return candidates, None
        depth, weight = rerank_parameters(self._settings, run.tuning, self._reranker, run.request.reranking)
        depth = min(depth, run.depth)
        head, tail = candidates[:depth], candidates[depth:]
        outcome = RerankOutcome(self._reranker.name, weight, 0, len(head), "decisive")
        margin = self._settings.rerank_skip_margin
        if margin is not None and run.request.rerank is None and decisive(candidates, margin):
            return candidates, outcome
        if self._too_late(run, head):
            return candidates, None
        with timed(run, "retrieve_ms"):
            self._retrieval.read(run, [item.id for item in head], tokens=self._reranker.reads_tokens)
        head = [item for item in head if item.id in run.passages]
        goal = Goal(top, weight, run.request.reranking.threshold)
        with timed(run, "rerank_ms", telemetry.RERANK.observe):
            started = time.perf_counter()
            found = self._rerank(run, self._reranker, head, tail, goal)
            if found.scored:
                self._retrieval.times.note(_A_PASSAGE, (time.perf_counter() - started) / found.scored)
        for reason in _degradations(found, goal, self._reranker):
            run.degrade("rerank", reason)
        if found.stopped == "error":
            telemetry.RERANK_ERRORS.inc()
        telemetry.STAGE_REQUESTS.labels("rerank", "error" if found.stopped == "error" else "ok").inc()
        telemetry.RERANK_STOPS.labels(found.stopped).inc()
        # a server says its model's name when it is first reached
        outcome = replace(outcome, reranker=self._reranker.name)
        return found.candidates, replace(outcome, scored=found.scored, of=found.of, stopped=found.stopped)

    def _too_late(self, run: Run, head: Sequence[Fused]) -> bool:
        """Whether too little time is left to read the passages and score a few of them; then it is stated."""
        times = self._retrieval.times
        expected = times.expected_s("fetch") + times.expected_s(_A_PASSAGE) * min(_A_FEW, len(head))
        left = (run.deadline.at - time.monotonic()) * RERANK
        if expected <= left or not expected:
            return False
        telemetry.RERANK_STOPS.labels("deadline").inc()
        run.degrade(
            "rerank",
            f"deadline: {max(0, int(left * 1000))} ms were left for it, which is less than it has lately needed for "
            "the first passages; results keep their fused order",
        )
        return True

    def _rerank(
        self, run: Run, reranker: Reranker, head: Sequence[Fused], tail: Sequence[Fused], goal: Goal
    ) -> Reranked:
        try:
            left_ms = run.deadline.remaining_s("rerank") * RERANK * 1000
            budget = Deadline.after(max(1, int(min(left_ms, self._settings.rerank_budget_ms))))
            partition = run.partition if run.features.rerank_cache else None
            begun = reranker.begin(run.request.query, run.encoded)
            scoring = with_score_cache(begun, self._scores, reranker, run.request.query, partition)
        except (DeadlineExceeded, EncoderError, RerankerError) as error:
            return Reranked([*head, *tail], 0, len(head), "error", error.kind)
        subjects = [Subject(run.passages[item.id], run.tokens.get(item.id)) for item in head]
        return rerank(head, tail, subjects, scoring, goal, calibrated=reranker.calibrated, deadline=budget)


def rerank_parameters(
    settings: Settings,
    tuning: Tuning,
    reranker: Reranker,
    asked: RerankRequest = RerankRequest(),  # noqa: B008 - frozen
) -> tuple[int, float]:
    """Depth and weight: the request's, else the setting's, else as tuned for this reranker, else its own."""
    tuned = tuning.rerank if tuning.rerank is not None and tuning.rerank.reranker == reranker.name else None
    depths = (asked.depth, settings.rerank_depth, tuned.depth if tuned else None, reranker.depth)
    weights = (asked.weight, settings.rerank_weight, tuned.weight if tuned else None, reranker.weight)
    return (
        next(value for value in depths if value is not None),
        next(value for value in weights if value is not None),
    )


def _degradations(found: Reranked, goal: Goal, reranker: Reranker) -> Iterator[str]:
    """What the caller has to know of a stage that did less than was meant, in words."""
    share = f"{found.scored} of {found.of} were reranked, the others keep their fused order behind them"
    if found.stopped == "deadline":
        yield f"deadline: {share}"
    if found.stopped == "error":
        yield f"{found.problem}: {share}" if found.scored else f"{found.problem}: results keep their fused order"
    if goal.threshold is not None and not reranker.calibrated:
        yield "no-threshold: the scores of this reranker are no probabilities, so all were reranked"
