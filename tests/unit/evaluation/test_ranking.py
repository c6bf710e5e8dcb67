"""What is measured is what is served: the same order, ties included."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.evaluation.collect import QueryLegs
from app.evaluation.ranking import NormalizedLegs, documents_of, normalize_all, rrf_ranking, single_rankings
from app.passage import Candidate
from app.querytext import read_query
from app.search.fusion import fuse_linear, fuse_rrf
from app.search.fusion_stage import rank_one_leg
from app.search.plan import Plan
from app.search.stages import Candidates
from app.store.responses import Leg, Outcome, Total
from app.tuning import Normalization

TECHNIQUES: tuple[Normalization, ...] = ("min_max", "z_score", "l2")
PASSAGES = [f"p{n:02}" for n in range(14)]

UNHURRIED = settings(deadline=None)
"""No judgement of speed: the machine may be busy."""


def candidate(name: str, score: float) -> Candidate:
    return Candidate(name, f"d{int(name[1:]) % 5}", score)  # a document has two or three of the passages


def legs(lexical: list[Candidate], dense: list[Candidate], bonus: dict[str, float] | None = None) -> QueryLegs:
    return QueryLegs(read_query("x"), tuple(lexical), tuple(dense), bonus or {}, 1.0, 1.0)


# few values: ties are common
leg = st.lists(
    st.tuples(st.sampled_from(PASSAGES), st.sampled_from([0.5, 1.0, 1.25, 2.0, 7.0, 7.01])),
    unique_by=lambda pair: pair[0],
    max_size=12,
).map(lambda pairs: sorted((candidate(*pair) for pair in pairs), key=lambda item: (-item.score, item.id)))
bonuses = st.dictionaries(st.sampled_from(PASSAGES), st.sampled_from([0.2, 1.0, 1.2, 2.0]), max_size=4)
alphas = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))


@UNHURRIED
@given(leg, leg, bonuses, alphas, st.sampled_from(TECHNIQUES))
def test_prepared_legs_rank_as_the_service_fuses(
    lexical: list[Candidate],
    dense: list[Candidate],
    bonus: dict[str, float],
    alpha: float,
    technique: Normalization,
) -> None:
    served = fuse_linear(lexical, dense, alpha, normalization=technique, bonus=bonus)
    prepared = NormalizedLegs.of(legs(lexical, dense, bonus), technique)
    assert prepared.ranking(alpha) == documents_of(served)
    assert prepared.ranking(alpha, most=2) == documents_of(served, 2)


@UNHURRIED
@given(leg, leg, bonuses, st.sampled_from(TECHNIQUES), st.integers(1, 12))
def test_a_depth_cuts_each_leg(
    lexical: list[Candidate], dense: list[Candidate], bonus: dict[str, float], technique: Normalization, depth: int
) -> None:
    served = fuse_linear(lexical[:depth], dense[:depth], 0.3, normalization=technique, bonus=bonus)
    prepared = normalize_all({"q": legs(lexical, dense, bonus)}, technique, depth)["q"]
    assert prepared.ranking(0.3) == documents_of(served)


@UNHURRIED
@given(leg, leg, bonuses)
def test_the_other_rankings_are_the_service_s_too(
    lexical: list[Candidate], dense: list[Candidate], bonus: dict[str, float]
) -> None:
    found = legs(lexical, dense, bonus)
    assert rrf_ranking(found, 60) == documents_of(fuse_rrf(lexical, dense, 60, bonus=bonus))
    # a bonus of 1 is what an identifier that is told in few passages gives
    exact = {f"err-{n}00": (1, (name,)) for n, name in enumerate(bonus)}
    found = legs(lexical, dense, dict.fromkeys(bonus, 1.0))
    outcome = Outcome(1, False, 1, 0)
    lexical_leg = Leg(tuple(lexical), Total(len(lexical)), outcome, exact=exact)
    dense_leg = Leg(tuple(dense), Total(len(dense)), outcome)
    served = {
        "lexical": rank_one_leg(Candidates(Plan("lexical", ""), lexical_leg.total, lexical=lexical_leg)).order,
        "dense": rank_one_leg(Candidates(Plan("dense", ""), dense_leg.total, dense=dense_leg)).order,
    }
    assert single_rankings(found) == (documents_of(served["lexical"]), documents_of(served["dense"]))


def test_a_document_stands_at_its_best_passage_s_place() -> None:
    ranked = [candidate("p07", 3.0), candidate("p01", 2.0), candidate("p02", 1.0), candidate("p00", 0.5)]
    assert documents_of(ranked) == ["d2", "d1", "d0"]
    assert documents_of(ranked, 2) == ["d2", "d1"]


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_nothing_collected(technique: Normalization) -> None:
    assert NormalizedLegs.of(legs([], []), technique).ranking(0.5) == []
    assert rrf_ranking(legs([], []), 60) == []
