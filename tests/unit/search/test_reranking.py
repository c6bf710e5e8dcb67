"""Blending, early exit and what happens when time runs out: pure, so by hand and by hypothesis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.deadline import Deadline
from app.errors import BraidError, DeadlineExceeded, EncoderError, Overloaded, RerankerError, RerankerUnavailable
from app.search.fusion import FusedCandidate, min_max
from app.search.reranking import Goal, RerankResult, Scores, Subject, arrange, blend, is_decisive, rerank
from tests.unit.generation.passages import hit

LONG = Deadline.after(60_000)
SHARES = st.floats(0, 1)


def candidate(name: str, fused: float, bonus: float = 0.0) -> FusedCandidate:
    return FusedCandidate(name, name, fused, bonus=bonus)


def candidates(*fused: float) -> list[FusedCandidate]:
    return [candidate(f"p{place:03}", score) for place, score in enumerate(fused)]


def subject(item: FusedCandidate) -> Subject:
    return Subject(replace(hit("text", item.id), id=item.id, score=item.fused))


class Fixed:
    """Gives each passage the score it is told, in blocks; `bound` is what it says no passage can exceed."""

    def __init__(self, scores: dict[str, float], block: int = 5, bound: float = 1.0) -> None:
        self._scores, self._block, self._bound = scores, block, bound
        self.seen: list[str] = []
        self.fails_at: dict[int, BraidError] = {}

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        return [len(subjects[start : start + self._block]) for start in range(0, len(subjects), self._block)]

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        if (error := self.fails_at.get(len(self.seen))) is not None:
            raise error
        self.seen += [item.hit.id for item in subjects]
        return np.array([self._scores[item.hit.id] for item in subjects])

    def upper_bound(self, fused: float) -> float:
        return self._bound


def run(
    head: list[FusedCandidate], scoring: Fixed, goal: Goal, tail: Sequence[FusedCandidate] = (), calibrated: bool = True
) -> RerankResult:
    return rerank(head, tail, [subject(item) for item in head], scoring, goal, calibrated=calibrated, deadline=LONG)


def ids(found: RerankResult) -> list[str]:
    return [item.id for item in found.candidates]


def test_the_final_score_is_a_weighted_mean_on_the_scale_of_the_fused_ones() -> None:
    head = candidates(0.9, 0.5, 0.1)
    found = run(head, Fixed({"p000": 0.0, "p001": 1.0, "p002": 0.5}), Goal(3, 0.5))
    # fused 1, 0.5, 0 (the lowest counts 0.001) and probabilities 0, 1, 0.5, half and half, between 0.1 and 0.9
    assert ids(found) == ["p001", "p000", "p002"]
    assert [item.score for item in found.candidates] == pytest.approx([0.7, 0.5, 0.3004])
    assert [item.rerank for item in found.candidates] == [1.0, 0.0, 0.5]
    assert (found.scored, found.of, found.stopped) == (3, 3, "complete")


def test_scores_that_are_no_probabilities_are_normalised_within_the_candidates() -> None:
    mixed = blend(np.array([1.0, 0.5, 0.0]), np.array([-3.0, 7.0, 2.0]), 1.0, calibrated=False)
    assert mixed == pytest.approx([0.001, 1.0, 0.5])


def test_weight_zero_keeps_the_order_and_weight_one_is_the_reranker_alone() -> None:
    head = candidates(0.9, 0.8, 0.7, 0.6)
    scores = {"p000": 0.1, "p001": 0.2, "p002": 0.3, "p003": 0.4}
    assert ids(run(head, Fixed(scores), Goal(4, 0.0))) == ["p000", "p001", "p002", "p003"]
    assert ids(run(head, Fixed(scores), Goal(4, 1.0))) == ["p003", "p002", "p001", "p000"]


def test_a_passage_without_a_score_keeps_what_fusion_gave_it() -> None:
    mixed = blend(np.array([1.0, 0.6, 0.0]), np.array([0.0, np.nan, 1.0]), 0.5, calibrated=True)
    assert mixed == pytest.approx([0.5, 0.6, 0.5])


def test_an_exact_match_stays_in_front() -> None:
    head = [candidate("exact", 0.2, bonus=1.0), *candidates(0.9, 0.5)]
    found = run(head, Fixed({"exact": 0.0, "p000": 1.0, "p001": 1.0}), Goal(3, 0.9))
    assert ids(found)[0] == "exact"


def test_equal_candidates_and_flat_scores_keep_their_order() -> None:
    head = candidates(0.5, 0.5, 0.5)
    assert ids(run(head, Fixed(dict.fromkeys(("p000", "p001", "p002"), 0.3)), Goal(3, 0.4))) == ["p000", "p001", "p002"]
    # but a reranker that can tell equals apart may
    assert ids(run(head, Fixed({"p000": 0.1, "p001": 0.2, "p002": 0.9}), Goal(3, 0.4)))[0] == "p002"


@pytest.mark.parametrize(
    ("error", "stopped", "problem"),
    [
        (DeadlineExceeded("late"), "deadline", ""),
        (Overloaded("full"), "deadline", "overloaded"),
        (RerankerUnavailable("away"), "error", "reranker-unavailable"),
        (RerankerError("broken"), "error", "reranker-error"),
        (EncoderError("broken"), "error", "encoder-error"),
    ],
)
def test_what_was_not_reached_stays_behind_in_fused_order(error: BraidError, stopped: str, problem: str) -> None:
    head, tail = candidates(*np.linspace(1.0, 0.5, 12).tolist()), [candidate("tail", 0.4)]
    scoring = Fixed({item.id: float(place) / 12 for place, item in enumerate(head)})
    scoring.fails_at = {5: error}
    found = run(head, scoring, Goal(12, 1.0), tail)
    assert (found.scored, found.of, found.stopped, found.problem) == (5, 12, stopped, problem)
    assert ids(found) == [*(f"p{n:03}" for n in (4, 3, 2, 1, 0)), *(f"p{n:03}" for n in range(5, 12)), "tail"]


def test_a_queue_that_is_full_from_the_start_is_an_error_of_its_own() -> None:
    head = candidates(0.9, 0.1)
    scoring = Fixed({})
    scoring.fails_at = {0: Overloaded("full")}
    found = run(head, scoring, Goal(2, 0.5))
    assert (ids(found), found.scored, found.stopped, found.problem) == (["p000", "p001"], 0, "error", "overloaded")


def test_enough_passages_over_the_threshold_end_it() -> None:
    head = candidates(*np.linspace(1.0, 0.1, 20).tolist())
    scoring = Fixed(dict.fromkeys((item.id for item in head), 0.8))
    found = run(head, scoring, Goal(5, 0.5, threshold=0.7))
    assert (found.scored, found.stopped) == (5, "threshold")
    assert run(head, Fixed(dict.fromkeys((item.id for item in head), 0.6)), Goal(5, 0.9, threshold=0.7)).scored == 20


def test_no_bound_is_drawn_from_scores_that_are_no_probabilities() -> None:
    head = candidates(*np.linspace(1.0, 0.1, 20).tolist())
    found = run(head, Fixed(dict.fromkeys((item.id for item in head), 0.8)), Goal(1, 0.5, 0.7), calibrated=False)
    assert found.scored == 20


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    SHARES,
    st.integers(1, 10),
    st.floats(0, 1),
)
def test_the_top_is_the_same_as_without_early_exit(
    pairs: list[tuple[float, float]], weight: float, top: int, bound: float
) -> None:
    """However it stops: with scores under the bound, nobody left out could have been among the first `top`."""
    head = candidates(*sorted((fused for fused, _ in pairs), reverse=True))
    scores = {item.id: min(score, bound) for item, (_, score) in zip(head, pairs, strict=True)}
    early = run(head, Fixed(scores, block=3, bound=bound), Goal(top, weight))
    whole = run(head, Fixed(scores, block=3, bound=1.0), Goal(len(head), weight))

    fused = dict(zip((item.id for item in head), min_max([item.fused for item in head]), strict=True))

    def values(found: RerankResult) -> list[float]:
        return [(1 - weight) * fused[item.id] + weight * scores[item.id] for item in found.candidates[:top]]

    assert values(early) == pytest.approx(values(whole))


@settings(max_examples=500, deadline=None)
@example(
    rows=[*[(0.0, 0.0, 0.2)] * 3, (0.0, 1.0, 0.2), (0.0, 0.0, 0.2), (3.0, 0.0, 0.0)],
    done=5,
    weight=1.0,
    calibrated=False,
)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-10, 10), st.sampled_from([0.0, 0.0, 0.2, 1.0])), max_size=30),
    st.integers(0, 30),
    SHARES,
    st.booleans(),
)
def test_nobody_is_lost_and_scores_never_rise(
    rows: list[tuple[float, float, float]], done: int, weight: float, calibrated: bool
) -> None:
    given_ = sorted(
        (candidate(f"p{place}", fused, 10 * bonus) for place, (fused, _, bonus) in enumerate(rows)),
        key=lambda item: item.place,
    )
    head, tail = given_[:20], given_[20:]
    done = min(done, len(head))
    scores = np.array([rows[int(item.id[1:])][1] for item in head])
    found = arrange(head, tail, scores, done, weight, calibrated=calibrated)
    assert sorted(item.id for item in found) == sorted(item.id for item in given_)
    values = [item.score for item in found]
    assert all(left >= right - 1e-9 for left, right in itertools.pairwise(values))
    assert [item.id for item in found[done:]] == [item.id for item in [*head[done:], *tail]]


def test_a_lead_is_measured_in_the_range_of_all_scores() -> None:
    assert is_decisive(candidates(1.0, 0.4, 0.0), 0.6)
    assert not is_decisive(candidates(1.0, 0.41, 0.0), 0.6)
    assert is_decisive(candidates(1.0), 1.0)
    assert not is_decisive(candidates(0.5, 0.5), 0.0)
