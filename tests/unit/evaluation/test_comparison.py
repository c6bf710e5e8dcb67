from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluation.comparison import QueryDifference, compare, holm, interval
from app.evaluation.measures import Measurement


def measured(values: list[float]) -> Measurement:
    return Measurement({"M": fmean(values)}, {"M": {f"q{number}": value for number, value in enumerate(values)}})


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw = random.Random(3)
    covered = 0
    for _ in range(200):
        low, high = interval([draw.gauss(0.5, 0.2) for _ in range(60)], resamples=400)
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_an_interval_is_as_wide_as_theory_says_and_the_same_each_time() -> None:
    values = [0.0, 1.0] * 200
    low, high = interval(values)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)
    assert interval(values, level=0.5)[0] > low
    uneven = [number**0.5 for number in range(30)]
    assert interval(uneven) == interval(uneven)
    assert interval(uneven, seed=1) != interval(uneven)


def test_an_interval_of_little() -> None:
    assert interval([0.3]) == (0.3, 0.3)
    assert interval([1.0] * 5) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_known_differences() -> None:
    found = compare(measured([0.1, 0.2, 0.3]), measured([0.2, 0.4, 0.6]), "M", names=("before", "after"))
    assert (found.baseline, found.way, found.measure) == ("before", "after", "M")
    assert found.mean_difference == pytest.approx(0.2)
    assert found.low < 0.2 < found.high
    assert found.p_t == pytest.approx(0.0742, abs=1e-4)  # t = 2 * sqrt(3), two degrees of freedom
    assert found.p_randomization == pytest.approx(2 / 2**3)  # of eight ways to turn signs two are as far out
    assert (found.wins, found.losses, found.ties) == (3, 0, 0)
    assert [win.query_id for win in found.biggest_wins] == ["q2", "q1", "q0"]
    assert found.biggest_losses == ()


def test_wins_losses_and_ties() -> None:
    before = [0.5] * 30
    after = [0.5 + number / 100 for number in range(15)] + [0.5 - number / 100 for number in range(15)]
    after[20] = 0.5 + 1e-12
    found = compare(measured(before), measured(after), "M")
    assert (found.wins, found.losses, found.ties) == (14, 13, 3)
    assert len(found.biggest_wins) == len(found.biggest_losses) == 10
    assert found.biggest_wins[0] == QueryDifference("q14", 0.5, 0.64)
    assert found.biggest_losses[0].difference == pytest.approx(-0.14)


def test_many_queries() -> None:
    draw = random.Random(1)
    before = [draw.random() for _ in range(400)]
    better = compare(measured(before), measured([value + draw.gauss(0.05, 0.2) for value in before]), "M")
    assert better.low > 0
    assert better.p_t < 0.01
    assert better.p_randomization == pytest.approx(better.p_t, abs=0.005)
    chance = compare(measured(before), measured([value + draw.gauss(0, 0.2) for value in before]), "M")
    assert chance.low < 0 < chance.high
    assert chance.p_randomization == pytest.approx(chance.p_t, abs=0.03)


@pytest.mark.parametrize(
    ("before", "after"), [([0.5], [0.7]), ([0.5, 0.5], [0.5, 0.5]), ([0.1] * 4, [0.1 + 1e-13] * 4)]
)
def test_little_to_compare(before: list[float], after: list[float]) -> None:
    found = compare(measured(before), measured(after), "M")
    assert (found.p_t, found.p_randomization) == (1.0, 1.0)
    assert found.low == found.mean_difference == found.high


def test_the_same_difference_everywhere() -> None:
    found = compare(measured([0.5] * 10), measured([0.6] * 10), "M")
    assert found.p_t == 1.0
    assert found.p_randomization == pytest.approx(2 / 2**10)


def test_other_queries() -> None:
    with pytest.raises(ValueError, match="same queries"):
        compare(measured([0.5]), measured([0.5, 0.6]), "M")


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    in_order = [after for _, after in sorted(zip(p_values, adjusted, strict=True))]
    assert in_order == sorted(in_order)
