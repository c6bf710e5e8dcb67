from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.passage import Candidate
from app.search.fusion import FLAT, FusedCandidate, bonus_scale, fuse_linear, fuse_rrf, min_max, normalise, rank_alone
from app.tuning import Normalization

TECHNIQUES: tuple[Normalization, ...] = ("min_max", "z_score", "l2")

UNHURRIED = settings(deadline=None)
"""No judgement of speed: the machine may be busy."""


def hit(name: str, score: float) -> Candidate:
    return Candidate(name, f"document of {name}", score)


LEXICAL = [hit("a", 9.0), hit("b", 5.0), hit("c", 1.0)]
DENSE = [hit("b", 1.9), hit("d", 1.5), hit("a", 1.1)]


def test_min_max_follows_the_plugin() -> None:
    assert min_max([9.0, 5.0, 1.0]).tolist() == [1.0, 0.5, 0.001]
    assert min_max([3.0, 3.0]).tolist() == [1.0, 1.0]
    assert min_max([]).tolist() == []


def test_a_spread_without_signal_is_not_blown_up() -> None:
    assert min_max([10.0, 9.9], flat=0.02).tolist() == pytest.approx([1.0, 0.5])
    assert min_max([8.0, 6.0], flat=0.25).tolist() == [1.0, 0.001]  # just enough
    assert min_max([10.0, 10.0], flat=0.02).tolist() == [1.0, 1.0]


def test_the_other_normalisations_by_hand() -> None:
    values, absent = normalise([3.0, 4.0], "l2", "lexical")
    assert (values.tolist(), absent) == ([0.6, 0.8], 0.0)
    values, absent = normalise([9.0, 5.0, 1.0], "z_score", "lexical")
    assert values.tolist() == pytest.approx([1.5**0.5, 0.0, -(1.5**0.5)])
    assert absent == pytest.approx(-(1.5**0.5))
    for technique in TECHNIQUES:
        values, absent = normalise([2.0, 2.0], technique, "dense")
        assert values.tolist() == pytest.approx([0.5**0.5] * 2 if technique == "l2" else [1.0] * 2)
        assert absent == 0.0
        assert normalise([], technique, "dense")[0].tolist() == []
    assert normalise([0.0, 0.0], "l2", "lexical")[0].tolist() == [1.0, 1.0]


def test_linear_by_hand() -> None:
    fused = fuse_linear(LEXICAL, DENSE, 0.5)
    assert [(h.id, pytest.approx(h.score)) for h in fused] == [("b", 0.75), ("a", 0.5005), ("d", 0.25), ("c", 0.0005)]
    best = fused[0]
    assert (best.lexical, best.dense, best.fused) == (5.0, 1.9, best.score)
    assert best.document_id == "document of b"
    assert fused[2].lexical is None
    assert fused[3].dense is None


def test_alpha_is_the_dense_share() -> None:
    assert [h.id for h in fuse_linear(LEXICAL, DENSE, 0.0)][:3] == ["a", "b", "c"]
    assert [h.id for h in fuse_linear(LEXICAL, DENSE, 1.0)][:3] == ["b", "d", "a"]


def test_rrf_by_hand() -> None:
    fused = fuse_rrf(LEXICAL, DENSE, 60)
    assert [(h.id, pytest.approx(h.score)) for h in fused] == [
        ("b", 1 / 61 + 1 / 62),
        ("a", 1 / 61 + 1 / 63),
        ("d", 1 / 62),
        ("c", 1 / 63),
    ]


def test_empty_legs() -> None:
    assert fuse_rrf([], [], 60) == []
    assert [h.id for h in fuse_rrf([], DENSE, 60)] == ["b", "d", "a"]
    for technique in TECHNIQUES:
        assert fuse_linear([], [], 0.5, normalization=technique) == []
        assert [h.id for h in fuse_linear([], DENSE, 0.5, normalization=technique)] == ["b", "d", "a"]
        assert [h.id for h in fuse_linear(LEXICAL, [], 0.5, normalization=technique)] == ["a", "b", "c"]


def test_ties_go_by_the_passage_id() -> None:
    same = [hit("z", 2.0), hit("m", 2.0), hit("a", 2.0)]
    assert [h.id for h in fuse_linear(same, [], 0.5)] == ["a", "m", "z"]
    assert [h.id for h in fuse_rrf([hit("z", 2.0)], [hit("a", 2.0)], 60)] == ["a", "z"]


def test_a_bonus_wins_a_tie() -> None:
    # at alpha 1 a passage that only the text leg found has 0 and its bonus: no more than the best of the vector leg
    fused = fuse_linear([hit("z", 5.0)], [hit("a", 1.9), hit("b", 1.0)], 1.0, bonus={"z": 1.0})
    assert [(h.id, h.score) for h in fused[:2]] == [("z", 1.0), ("a", 1.0)]


def test_one_leg_alone() -> None:
    assert [(h.id, h.score, h.lexical, h.dense) for h in rank_alone(DENSE, "dense")] == [
        ("b", 1.9, None, 1.9),
        ("d", 1.5, None, 1.5),
        ("a", 1.1, None, 1.1),
    ]
    first, *others = rank_alone(LEXICAL, "lexical", {"c": 1.0})
    assert (first.id, first.lexical, first.score) == (
        "c",
        1.0,
        pytest.approx(9.0),
    )  # the bonus is a share of the range of scores
    assert [h.id for h in others] == ["a", "b"]
    assert [h.id for h in rank_alone(LEXICAL, "lexical", {"c": 0.2})] == ["a", "b", "c"]


# floats that differ by rounding alone would make equal what is not, or turn an order round
scores = st.integers(0, 5000).map(lambda number: number / 100)


def legs(least: int = 0) -> st.SearchStrategy[list[Candidate]]:
    pairs = st.lists(
        st.tuples(st.sampled_from("abcdefghij"), scores), unique_by=lambda pair: pair[0], min_size=least, max_size=10
    )
    return pairs.map(lambda found: sorted((hit(*pair) for pair in found), key=lambda h: (-h.score, h.id)))


alphas = st.integers(0, 100).map(lambda number: number / 100)
techniques = st.sampled_from(TECHNIQUES)
Fuse = Callable[[list[Candidate], list[Candidate]], list[FusedCandidate]]


def ways(alpha: float, bonus: dict[str, float] | None = None) -> list[Fuse]:
    linear = [
        lambda left, right, t=technique: fuse_linear(left, right, alpha, normalization=t, bonus=bonus)
        for technique in TECHNIQUES
    ]
    return [*linear, lambda left, right: fuse_rrf(left, right, 60, bonus=bonus)]


@UNHURRIED
@given(legs(), legs(), alphas)
def test_nothing_is_lost_or_doubled_and_the_order_is_total(
    left: list[Candidate], right: list[Candidate], alpha: float
) -> None:
    lexical, dense = {h.id: h.score for h in left}, {h.id: h.score for h in right}
    for fuse in ways(alpha):
        fused = fuse(left, right)
        assert {h.id for h in fused} == lexical.keys() | dense.keys()
        assert len({h.id for h in fused}) == len(fused)
        assert fused == sorted(fused, key=lambda h: (-h.score, h.id))
        assert all((h.lexical, h.dense) == (lexical.get(h.id), dense.get(h.id)) for h in fused)
        assert all(h.fused == h.score for h in fused)


@UNHURRIED
@given(legs(), legs(), alphas)
def test_scores_stay_in_their_range(left: list[Candidate], right: list[Candidate], alpha: float) -> None:
    for technique in ("min_max", "l2"):
        for h in fuse_linear(left, right, alpha, normalization=technique):
            assert 0 <= h.score <= 1 + 1e-12
    assert all(0 < h.score <= 2 / 61 for h in fuse_rrf(left, right, 60))
    for h in fuse_linear(left, right, alpha, normalization="z_score"):
        assert abs(h.score) <= 10**0.5  # of n values none lies further from the mean than sqrt(n - 1) deviations


@UNHURRIED
@given(legs(), legs(), alphas, st.randoms())
def test_the_order_in_which_a_leg_comes_does_not_matter(
    left: list[Candidate], right: list[Candidate], alpha: float, chance: random.Random
) -> None:
    mixed = [chance.sample(leg, len(leg)) for leg in (left, right)]
    for technique in TECHNIQUES:
        whole = fuse_linear(left, right, alpha, normalization=technique)
        again = fuse_linear(*mixed, alpha, normalization=technique)
        assert [h.score for h in again] == pytest.approx([h.score for h in whole], rel=1e-12, abs=1e-12)
        if technique == "min_max":  # sums of the other two depend on the order in their last digits
            assert again == whole


@UNHURRIED
@given(legs(1), legs(1), alphas, alphas)
def test_more_weight_lifts_what_only_that_leg_found(
    left: list[Candidate], right: list[Candidate], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    before = {h.id: h for h in fuse_linear(left, right, low)}
    for h in fuse_linear(left, right, high):
        if h.lexical is None:
            assert h.score >= before[h.id].score
        if h.dense is None:
            assert h.score <= before[h.id].score


@UNHURRIED
@given(st.lists(scores, min_size=1, max_size=12))
def test_min_max_is_the_plugin_s_from_flat_on(values: list[float]) -> None:
    low, high = min(values), max(values)
    flat = FLAT["lexical"]
    assume(high == low or high - low >= flat * high)
    plugin = [1.0 if high == low else (value - low) / (high - low) or 0.001 for value in values]
    assert min_max(values, flat).tolist() == plugin


@UNHURRIED
@given(st.lists(scores, min_size=1, max_size=12), st.floats(0, 0.2))
def test_a_guarded_leg_keeps_its_order_and_stays_in_0_to_1(values: list[float], flat: float) -> None:
    scaled = min_max(values, flat)
    assert ((scaled > 0) & (scaled <= 1)).all()
    assert scaled.max() == 1.0
    if np.ptp(values) < flat * max(values):  # else the plugin's 0.001 for the lowest may pass those just above it
        order = np.argsort(scaled, kind="stable")
        assert (np.diff(np.asarray(values)[order]) >= 0).all()


@UNHURRIED
@given(legs(2), st.floats(0, 0.999), alphas)
def test_a_flat_leg_outvotes_the_other_by_no_more_than_its_differences(
    right: list[Candidate], share: float, alpha: float
) -> None:
    """All of both legs' passages: the flat one moves a pair only where the other holds it closer than its share."""
    assume(right[0].score > right[-1].score)
    spread = share * FLAT["lexical"]  # of the best score, which is 1
    left = [hit(h.id, 1.0 - spread * n / len(right)) for n, h in enumerate(sorted(right, key=lambda h: h.id))]
    bound = (1 - alpha) * share
    dense, _ = normalise([h.score for h in right], "min_max", "dense")
    of_dense = dict(zip((h.id for h in right), alpha * dense, strict=True))
    fused = fuse_linear(left, right, alpha)
    for place, first in enumerate(fused):
        for second in fused[place + 1 :]:
            assert of_dense[second.id] - of_dense[first.id] <= bound + 1e-9


@UNHURRIED
@given(legs(), legs(), st.integers(1, 1000))
def test_rrf_sums_reciprocal_ranks(left: list[Candidate], right: list[Candidate], constant: int) -> None:
    wanted: dict[str, float] = {}
    for leg in (left, right):
        for rank, h in enumerate(leg, start=1):
            wanted[h.id] = wanted.get(h.id, 0.0) + 1 / (constant + rank)
    assert {h.id: h.score for h in fuse_rrf(left, right, constant)} == pytest.approx(wanted, rel=1e-12)


@UNHURRIED
@given(legs(), legs(), alphas, st.sets(st.sampled_from("abcdefghij")))
def test_a_bonus_puts_exact_matches_first_and_keeps_their_order(
    left: list[Candidate], right: list[Candidate], alpha: float, exact: set[str]
) -> None:
    bonus = dict.fromkeys(exact, 1.0)
    for plain, with_bonus in zip(ways(alpha), ways(alpha, bonus), strict=True):
        before, after = plain(left, right), with_bonus(left, right)
        places = [h.id in exact for h in after]
        assert places == sorted(places, reverse=True)
        assert [h.score for h in after] == sorted((h.score for h in after), reverse=True)
        assert {h.id: h.fused for h in after} == {h.id: h.fused for h in before}
        assert all(h.bonus == 0 for h in after if h.id not in exact)
    for leg in (left, right):
        places = [h.id in exact for h in rank_alone(leg, "lexical", bonus)]
        assert places == sorted(places, reverse=True)


@UNHURRIED
@given(legs(), legs(), techniques)
def test_a_bonus_is_measured_by_the_range_of_the_scores(
    left: list[Candidate], right: list[Candidate], technique: Normalization
) -> None:
    scaled = [
        normalise([h.score for h in leg], technique, which) for leg, which in ((left, "lexical"), (right, "dense"))
    ]
    scale = bonus_scale(*scaled)
    assert scale >= 1
    if technique != "z_score":
        assert scale == 1
    for alpha in (0.0, 0.3, 1.0):
        fused = [h.score for h in fuse_linear(left, right, alpha, normalization=technique)]
        assert not fused or max(fused) - min(fused) <= scale + 1e-12
