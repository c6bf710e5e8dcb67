"""Reranking: candidates are scored in order of fused score, block by block, until more would not pay.

The final score is a weighted mean of the fused score, min-max normalised within the candidates, and the reranker's
score: plain replacement harms collections that the reranker does not know. Calibrated probabilities are used as they
are, so that an upper bound for unseen passages exists; other scores are min-max normalised within the candidates. The
mean is then mapped back to the scale of the fused scores, so that candidates without reranking follow with their own
scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, Overloaded, RerankerError
from app.passage import Hit
from app.search.fusion import FusedCandidate, min_max

Scores = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]
Stop = Literal["complete", "deadline", "bound", "threshold", "error"]

_FLAT = 1e-6
"""Span of the final scores if all candidates have the same fused score."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A passage to score: what was read of it, and its packed token vectors if the store has them.

    `passage` is None where the reranker scores the token vectors (`Reranker.reads`).
    """

    passage: Hit | None
    tokens: bytes | None = None

    @property
    def hit(self) -> Hit:
        """The passage that was read."""
        assert self.passage is not None  # noqa: S101 - read unless the reranker said that it needs none
        return self.passage


@dataclass(frozen=True, slots=True)
class TextScores:
    """Scores of texts, shape (n,), and the number of texts that were cut (None: unknown)."""

    scores: Scores
    truncated: int | None


class Scoring(Protocol):
    """Scoring of one query's candidates."""

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """Return the sizes of the blocks to score, with the number of subjects as their sum."""
        ...

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Return scores of a block, shape (n,); NaN for a passage without a score.

        Raises:
            DeadlineExceeded: the time does not suffice for the block.
            EncoderError, RerankerError, Overloaded: the reranker failed or is full.
        """
        ...

    def upper_bound(self, fused: float) -> float:
        """Return the highest expected score of a passage with this normalised fused score."""
        ...


class Reranker(Protocol):
    """Scores passages against a query."""

    @property
    def name(self) -> str:
        """Name in answers."""
        ...

    @property
    def weight(self) -> float:
        """Measured best share in the final score."""
        ...

    @property
    def depth(self) -> int:
        """Default number of candidates."""
        ...

    @property
    def calibrated(self) -> bool:
        """Return whether its scores are probabilities."""
        ...

    @property
    def reads_tokens(self) -> bool:
        """Return whether it uses the stored token vectors."""
        ...

    def reads(self, tokens: bytes | None) -> bool:
        """Return whether it scores these token vectors of a passage, so that its text need not be read."""
        ...

    def encode_query(self, text: str) -> tuple[Vector, object] | None:
        """Return the query's vector for the dense leg, and the part of the inference for `begin`; None without
        embedding.

        Raises:
            EncoderError.
        """
        ...

    def begin(self, query: str, encoded: object | None) -> Scoring:
        """Prepare a query. Raises EncoderError, RerankerError."""
        ...

    def score_texts(
        self, query: str, texts: Sequence[str], deadline: Deadline, *, max_tokens: int | None = None
    ) -> TextScores:
        """Return scores in the order of the texts, of which at most `max_tokens` are read (None: what the model can).

        Raises:
            DeadlineExceeded, EncoderError, RerankerError, Overloaded.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Goal:
    """Goal of reranking: the best `top` in order, and `threshold`, a sufficient probability."""

    top: int
    weight: float
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class RerankResult:
    """All candidates in their new order; `scored` of the first `of` were reranked, and `stopped` says why not more."""

    candidates: Sequence[FusedCandidate]
    scored: int
    of: int
    stopped: Stop
    problem: str = ""
    """Kind of the error, if `stopped` is ``error``."""


def rerank(
    head: Sequence[FusedCandidate],
    tail: Sequence[FusedCandidate],
    subjects: Sequence[Subject],
    scoring: Scoring,
    goal: Goal,
    *,
    calibrated: bool,
    deadline: Deadline,
) -> RerankResult:
    """Reorder `head`; `tail` stays behind it.

    Args:
        head: candidates to rerank, best first.
        tail: the others, best first.
        subjects: the passages of `head`, in its order.
        calibrated: whether the scores are probabilities.
    """
    fused = min_max([item.fused for item in head])
    scores = np.full(len(head), np.nan)
    done, stopped, problem = 0, _COMPLETE, ""
    for size in scoring.blocks(subjects):
        if done and calibrated and (reason := _stop_reason(fused, scores, done, scoring, goal)):
            stopped = reason
            break
        try:
            scores[done : done + size] = scoring.score(subjects[done : done + size], deadline)
        except DeadlineExceeded:
            stopped = "deadline"
            break
        except (EncoderError, RerankerError, Overloaded) as error:
            # a queue that is full by now means that time ran out
            stopped = "deadline" if done and isinstance(error, Overloaded) else "error"
            problem = error.kind
            break
        done += size
    ordered = arrange(head, tail, scores, done, goal.weight, calibrated=calibrated)
    return RerankResult(ordered, done, len(head), stopped, problem)


_COMPLETE: Stop = "complete"


def blend(fused: Scores, scores: Scores, weight: float, *, calibrated: bool) -> Scores:
    """Return the weighted mean of normalised fused scores and the reranker's, both of shape (n,).

    Without a reranker's score (NaN) the fused score counts alone.
    """
    there = ~np.isnan(scores)
    own = np.full(len(scores), np.nan)
    if there.any():
        own[there] = np.clip(scores[there], 0, 1) if calibrated else min_max(scores[there].tolist())
    mixed: Scores = np.where(there, (1 - weight) * fused + weight * own, fused)
    return mixed


def _stop_reason(fused: Scores, scores: Scores, done: int, scoring: Scoring, goal: Goal) -> Stop | None:
    """Return the reason why the rest need not be scored; None if it must be."""
    known = scores[:done]
    if goal.threshold is not None and int((known >= goal.threshold).sum()) >= goal.top:
        return "threshold"
    if done < goal.top:
        return None
    reached = np.sort(blend(fused[:done], known, goal.weight, calibrated=True))[-goal.top]
    # the rest have no higher fused score, except that one placed first for an exact match may have a low one
    most = float(fused[done:].max())
    return "bound" if (1 - goal.weight) * most + goal.weight * scoring.upper_bound(most) < reached else None


def arrange(
    head: Sequence[FusedCandidate],
    tail: Sequence[FusedCandidate],
    scores: Scores,
    done: int,
    weight: float,
    *,
    calibrated: bool,
) -> list[FusedCandidate]:
    """Return the candidates in their final order.

    Args:
        head: candidates for reranking, best first.
        tail: the others, best first.
        scores: the reranker's scores, shape (len(head),); NaN if it has none.
        done: number of reranked candidates of `head`; the rest stays behind them.
        weight: the reranker's share.
        calibrated: whether the scores are probabilities.
    """
    rest = [*head[done:], *tail]
    if not done:
        return rest
    fused = min_max([item.fused for item in head])
    mixed = blend(fused[:done], scores[:done], weight, calibrated=calibrated)
    own = [item.fused for item in head[:done]]
    # reranked candidates stay in front of the rest, which may contain exact matches, too
    least = min(item.bonus for item in head[:done])
    low = max([min(own), *(item.score - least for item in rest)])
    high = max([low, *own])
    span = max(high - low, _FLAT * max(1.0, abs(high)))
    ranked = [
        item._replace(final=low + span * share, rerank=None if np.isnan(score) else score)
        for item, share, score in zip(head[:done], mixed.tolist(), scores[:done].tolist(), strict=True)
    ]
    # stable: ties keep their fused order
    return [*sorted(ranked, key=lambda item: (-item.score, -item.bonus)), *rest]


def is_decisive(candidates: Sequence[FusedCandidate], margin: float) -> bool:
    """Return whether the best candidate leads the second by `margin` (0..1) of the range of all scores."""
    if len(candidates) < 2:
        return True
    scores = [item.score for item in candidates]
    span = max(scores) - min(scores)
    return span > 0 and (scores[0] - scores[1]) / span >= margin
