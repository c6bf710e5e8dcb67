"""The rerank stage: candidates go to a reranker in order of fused score, block by block, until it pays no more.

The final score is a weighted mean of the fused score, min-max normalised within the candidates, and the reranker's:
plain replacement harms collections that the reranker does not know. A reranker whose scores are calibrated
probabilities enters with these, so that a bound for passages not yet seen can be given; any other enters min-max
normalised within the candidates. The mean is then put back on the scale of the fused scores, so that what was not
reranked follows behind with the score that it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, Overloaded, RerankerError
from app.passage import Hit
from app.search.fusion import Fused, min_max

Scores = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]
Stop = Literal["complete", "deadline", "bound", "threshold", "error"]

_FLAT = 1e-6
"""The span of the final scores where all candidates have the same fused score."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A passage to be scored, with the packed vectors of its tokens where the store has them."""

    hit: Hit
    tokens: bytes | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """Scores of texts, shape (n,), and of how many the model read only the beginning (None: not known)."""

    scores: Scores
    truncated: int | None


class Scoring(Protocol):
    """One query against its candidates."""

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """Sizes of the blocks in which to score them, summing up to all."""
        ...

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Scores of a block, shape (n,); NaN where a passage has none.

        Raises:
            DeadlineExceeded: there is not time enough for the block.
            EncoderError, RerankerError, Overloaded: the reranker failed, or takes no more.
        """
        ...

    def upper_bound(self, fused: float) -> float:
        """The highest score to expect of a passage with this normalised fused score."""
        ...


class Reranker(Protocol):
    """A way to score passages against a query."""

    @property
    def name(self) -> str:
        """What the answers call it."""
        ...

    @property
    def weight(self) -> float:
        """Its share in the final score, as measured for it."""
        ...

    @property
    def depth(self) -> int:
        """How many candidates it takes unless asked otherwise."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether its scores are probabilities."""
        ...

    @property
    def reads_tokens(self) -> bool:
        """Whether it uses the vectors of tokens that the store keeps."""
        ...

    def encode_query(self, text: str) -> tuple[Vector, object] | None:
        """The query's vector for the dense leg, and what `begin` needs of the same inference; None: it embeds nothing.

        Raises:
            EncoderError.
        """
        ...

    def begin(self, query: str, encoded: object | None) -> Scoring:
        """Prepare for a query. Raises EncoderError, RerankerError."""
        ...


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted: the best `top` in their right order, and `threshold`, a probability that is good enough."""

    top: int
    weight: float
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Reranked:
    """All candidates in their new order; `scored` of the first `of` were reranked, and why no more were."""

    candidates: Sequence[Fused]
    scored: int
    of: int
    stopped: Stop
    problem: str = ""
    """The kind of the error, where `stopped` is ``error``."""


def rerank(
    head: Sequence[Fused],
    tail: Sequence[Fused],
    subjects: Sequence[Subject],
    scoring: Scoring,
    goal: Goal,
    *,
    calibrated: bool,
    deadline: Deadline,
) -> Reranked:
    """Reorder `head`; `tail` stays behind it.

    Args:
        head: candidates to rerank, best first.
        tail: the others, best first.
        subjects: the passages of `head`, in its order.
        scoring: the reranker at this query.
        goal: when to stop, and how to blend.
        calibrated: whether the scores are probabilities.
        deadline: of this stage.
    """
    fused = min_max([item.fused for item in head])
    scores = np.full(len(head), np.nan)
    done, stopped, problem = 0, _COMPLETE, ""
    for size in scoring.blocks(subjects):
        if done and calibrated and (reason := _enough(head, fused, scores, done, scoring, goal)):
            stopped = reason
            break
        try:
            scores[done : done + size] = scoring.score(subjects[done : done + size], deadline)
        except DeadlineExceeded:
            stopped = "deadline"
            break
        except (EncoderError, RerankerError, Overloaded) as error:
            # a queue that is full by now is time that has run out
            stopped = "deadline" if done and isinstance(error, Overloaded) else "error"
            problem = error.kind
            break
        done += size
    ordered = arrange(head, tail, scores, done, goal.weight, calibrated=calibrated)
    return Reranked(ordered, done, len(head), stopped, problem)


_COMPLETE: Stop = "complete"


def blend(fused: Scores, scores: Scores, weight: float, *, calibrated: bool) -> Scores:
    """Weighted mean of normalised fused scores and the reranker's, both of shape (n,).

    Where the reranker has none (NaN) the fused score stands alone.
    """
    there = ~np.isnan(scores)
    own = np.full(len(scores), np.nan)
    if there.any():
        own[there] = np.clip(scores[there], 0, 1) if calibrated else min_max(scores[there].tolist())
    mixed: Scores = np.where(there, (1 - weight) * fused + weight * own, fused)
    return mixed


def _enough(
    head: Sequence[Fused], fused: Scores, scores: Scores, done: int, scoring: Scoring, goal: Goal
) -> Stop | None:
    """Why the rest need not be scored; None where they must be."""
    known = scores[:done]
    if goal.threshold is not None and int((known >= goal.threshold).sum()) >= goal.top:
        return "threshold"
    if done < goal.top:
        return None
    reached = np.sort(blend(fused[:done], known, goal.weight, calibrated=True))[-goal.top]
    # the rest have no higher fused score, unless one that comes first for an exact match has a low one
    most = float(fused[done:].max())
    return "bound" if (1 - goal.weight) * most + goal.weight * scoring.upper_bound(most) < reached else None


def arrange(
    head: Sequence[Fused], tail: Sequence[Fused], scores: Scores, done: int, weight: float, *, calibrated: bool
) -> list[Fused]:
    """The candidates in their final order.

    Args:
        head: those that were meant to be reranked, best first.
        tail: the others, best first.
        scores: the reranker's, shape (len(head),); NaN where it has none.
        done: so many of `head` were reranked; the rest stays behind them.
        weight: the reranker's share.
        calibrated: whether the scores are probabilities.
    """
    rest = [*head[done:], *tail]
    if not done:
        return rest
    fused = min_max([item.fused for item in head])
    mixed = blend(fused[:done], scores[:done], weight, calibrated=calibrated)
    own = [item.fused for item in head[:done]]
    # whoever was reranked stays in front of the rest, which may hold exact matches too
    least = min(item.bonus for item in head[:done])
    low = max([min(own), *(item.score - least for item in rest)])
    high = max([low, *own])
    span = max(high - low, _FLAT * max(1.0, abs(high)))
    ranked = [
        replace(item, final=low + span * share, rerank=None if np.isnan(score) else score)
        for item, share, score in zip(head[:done], mixed.tolist(), scores[:done].tolist(), strict=True)
    ]
    # stable: what is equal keeps its fused order
    return [*sorted(ranked, key=lambda item: (-item.score, -item.bonus)), *rest]


def decisive(candidates: Sequence[Fused], margin: float) -> bool:
    """Whether the best candidate leads the second by `margin` (0..1) of the range of all candidates' scores."""
    if len(candidates) < 2:
        return True
    scores = [item.score for item in candidates]
    span = max(scores) - min(scores)
    return span > 0 and (scores[0] - scores[1]) / span >= margin
