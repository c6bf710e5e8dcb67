"""A search's rerank stage: whether it runs, on how many candidates, with what share and time; what it had to leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from app import telemetry
from app.config import Settings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, RerankerError
from app.search.fusion import Fused
from app.search.request import RerankRequest
from app.search.reranking import Goal, Reranked, Reranker, Stop, Subject, decisive, rerank
from app.search.retrieval import Retrieval, Run, timed
from app.tuning import Tuning

_SHARE = 0.8
"""Of the time that is left when reranking begins: the page has still to be made."""


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

    def __init__(self, settings: Settings, reranker: Reranker | None, retrieval: Retrieval) -> None:
        self._settings = settings
        self._reranker = reranker
        self._retrieval = retrieval

    def wanted(self, run: Run) -> bool:
        """Whether the request is to be reranked, by its own word or by default."""
        asked = run.request.rerank
        if asked is None:
            return self._settings.rerank_default and run.request.mode == "hybrid"
        return asked is not False

    def encode_query(self, run: Run) -> npt.NDArray[np.float32] | None:
        """The query's vector, where the reranker needs the same inference; None: encode it without.

        Raises:
            EncoderError.
        """
        if self._reranker is None or not self.wanted(run):
            return None
        encoded = self._reranker.encode_query(run.request.query)
        if encoded is None:
            return None
        run.encoded = encoded[1]
        return encoded[0]

    def apply(self, run: Run, candidates: Sequence[Fused], top: int) -> tuple[Sequence[Fused], RerankOutcome | None]:
        """The candidates in the reranker's order, as far as it got; degraded where that was not as far as meant.

        Args:
            run: of the search.
            candidates: best first.
            top: how many of them must be in their right place.

        Raises:
            StoreError, DeadlineExceeded: the passages could not be read.
        """
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
        with timed(run, "retrieve_ms"):
            self._retrieval.read(run, [item.id for item in head], tokens=self._reranker.reads_tokens)
        head = [item for item in head if item.id in run.passages]
        goal = Goal(top, weight, run.request.reranking.threshold)
        with timed(run, "rerank_ms", telemetry.RERANK.observe):
            found = self._rerank(run, self._reranker, head, tail, goal)
        for reason in _degradations(found, goal, self._reranker):
            run.degrade("rerank", reason)
        if found.stopped == "error":
            telemetry.RERANK_ERRORS.inc()
        telemetry.STAGE_REQUESTS.labels("rerank", "error" if found.stopped == "error" else "ok").inc()
        telemetry.RERANK_STOPS.labels(found.stopped).inc()
        # a server says its model's name when it is first reached
        outcome = replace(outcome, reranker=self._reranker.name)
        return found.candidates, replace(outcome, scored=found.scored, of=found.of, stopped=found.stopped)

    def _rerank(
        self, run: Run, reranker: Reranker, head: Sequence[Fused], tail: Sequence[Fused], goal: Goal
    ) -> Reranked:
        try:
            left_ms = run.deadline.remaining_s("rerank") * _SHARE * 1000
            budget = Deadline.after(max(1, int(min(left_ms, self._settings.rerank_budget_ms))))
            scoring = reranker.begin(run.request.query, run.encoded)
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
