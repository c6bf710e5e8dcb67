"""Measures, weight, calibration and bound."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, nDCG

from reranker.evaluate import fit, fit_settings
from reranker.fitting import (
    BOUND_SHARE,
    JudgedQuery,
    Point,
    TooFewJudgements,
    best_weight,
    brier,
    calibration_error,
    curve,
    fit_bound,
    fit_isotonic,
    fit_platt,
    judged_query,
)
from reranker.measures import ideal_dcg, min_max, mrr, ndcg
from reranker.model_folder import ModelSettings

PLAIN = ModelSettings(name="m")


def made(queries: int = 60, *, seed: int = 0, noise: float = 1.0) -> list[JudgedQuery]:
    """Queries with 20 candidates, two of them relevant; the logits know them, the fused scores hardly."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(queries):
        grades = np.zeros(20)
        grades[rng.choice(20, 2, replace=False)] = 1
        logits = 3.0 * grades - 4.0 + noise * rng.normal(size=20)
        found.append(judged_query(str(number), rng.random(20) + 0.1 * grades, logits, grades, ideal_dcg(grades)))
    return found


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 50)), min_size=1, max_size=30),
    st.lists(st.integers(0, 3), max_size=15),
)
def test_the_measures_are_those_of_the_library(rows: list[tuple[int, int]], unfound: list[int]) -> None:
    grades = np.array([grade for grade, _ in rows], float)
    # no ties: the library would order them by name
    scores = np.array([score + place / 100 for place, (_, score) in enumerate(rows)], float)
    qrels = {f"d{place}": max(grade, 0) for place, (grade, _) in enumerate(rows)}
    qrels |= {f"u{place}": grade for place, grade in enumerate(unfound)}
    run = {f"d{place}": float(score) for place, score in enumerate(scores)}
    expected = {
        item.measure: item.value for item in ir_measures.iter_calc([nDCG @ 10, RR @ 10], {"q": qrels}, {"q": run})
    }
    assert ndcg(scores, grades, ideal_dcg(map(float, qrels.values()))) == pytest.approx(expected[nDCG @ 10])
    assert mrr(scores, grades) == pytest.approx(expected[RR @ 10])


def test_min_max_of_equal_scores_and_of_none() -> None:
    assert min_max(np.array([2.0, 2.0])).tolist() == [1.0, 1.0]
    assert min_max(np.array([])).tolist() == []
    assert min_max(np.array([1.0, 3.0, 2.0])).tolist() == [0.0, 1.0, 0.5]


def test_the_curve_begins_at_the_first_stage_and_ends_at_the_reranker() -> None:
    queries = made()
    points = curve(queries, PLAIN)
    first = np.mean([ndcg(item.fused, item.grades, item.ideal) for item in queries])
    last = np.mean([ndcg(item.logits, item.grades, item.ideal) for item in queries])
    assert (points[0].weight, points[-1].weight) == (0.0, 1.0)
    assert points[0].ndcg == pytest.approx(first)
    assert points[-1].ndcg == pytest.approx(last)


def test_of_equally_good_weights_the_smallest_is_taken() -> None:
    points = [Point(0.0, 0.5, 0), Point(0.3, 0.6997, 0), Point(0.6, 0.7, 0), Point(1.0, 0.65, 0)]
    assert best_weight(points) == 0.3


@pytest.mark.parametrize("fit_it", [fit_platt, fit_isotonic])
def test_calibrated_scores_are_probabilities(fit_it: type) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, 20_000)
    relevant = rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * logits - 2)))
    calibration = fit_it(logits[:10_000], relevant[:10_000])  # type: ignore[call-arg]
    probability = calibration.probability(logits[10_000:])  # type: ignore[attr-defined]
    raw = 1 / (1 + np.exp(-logits[10_000:]))
    assert calibration_error(probability, relevant[10_000:]) < 0.02
    assert calibration_error(raw, relevant[10_000:]) > 0.1
    assert brier(probability, relevant[10_000:]) < brier(raw, relevant[10_000:])


def test_platt_finds_the_line_that_made_the_labels() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(2, 5, 50_000)
    relevant = rng.random(50_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    found = fit_platt(logits, relevant)
    assert found.a == pytest.approx(0.5, rel=0.05)
    assert found.b == pytest.approx(-1.0, rel=0.1)


def test_logits_that_say_the_opposite_get_a_rising_line_all_the_same() -> None:
    logits = np.array([3.0, 2.0, 1.0, 0.0] * 5)
    found = fit_platt(logits, logits < 1.5)
    assert 0 < found.a < 0.1


def test_logits_that_are_all_the_same() -> None:
    relevant = np.array([True, False, False, False])
    assert fit_platt(np.ones(4), relevant).probability(np.ones(1))[0] == pytest.approx(0.25, abs=0.1)
    assert fit_isotonic(np.ones(4), relevant).probability(np.ones(1))[0] == pytest.approx(0.25)


@pytest.mark.parametrize("fit_it", [fit_platt, fit_isotonic])
def test_nothing_to_calibrate_by(fit_it: type) -> None:
    with pytest.raises(TooFewJudgements, match="0 relevant and 5 other candidates"):
        fit_it(np.arange(5.0), np.zeros(5, bool))  # type: ignore[call-arg]


def test_hardly_anything_lies_above_the_bound() -> None:
    rng = np.random.default_rng(4)
    fused = rng.random(20_000)
    probability = np.clip(fused * rng.random(20_000), 0, 1)
    bound = fit_bound(fused[:10_000], probability[:10_000])
    over = probability[10_000:] > bound.probability(fused[10_000:])
    assert over.mean() <= 1 - BOUND_SHARE
    assert bound.probability(np.array([0.05]))[0] < 0.35, "where passages are never probable, the bound says so"


def test_the_bound_of_candidates_with_one_score() -> None:
    assert fit_bound(np.ones(30), np.full(30, 0.2)).probability(np.ones(1)).tolist() == [1.0]


def test_fitted_on_one_half_and_reported_on_the_other() -> None:
    found = fit(made(80), PLAIN, method="platt")
    assert (found.queries_fitted, found.queries_reported) == (40, 40)
    assert found.after.ndcg > found.before.ndcg + 0.1
    assert found.settings.weight > 0.3
    assert found.calibration_error < 0.05
    assert found.settings.bound is not None


def test_a_reranker_that_knows_nothing_gets_no_weight() -> None:
    noise = [
        JudgedQuery(
            item.query_id, item.fused + item.grades, np.random.default_rng(n).normal(size=20), item.grades, item.ideal
        )
        for n, item in enumerate(made())
    ]
    assert fit_settings(noise, PLAIN, method="platt").weight <= 0.1


def test_the_halves_do_not_depend_on_the_order() -> None:
    queries = made(40)
    assert fit(queries, PLAIN, method="platt") == fit(queries[::-1], PLAIN, method="platt")


def test_too_few_queries() -> None:
    with pytest.raises(TooFewJudgements, match="at least 10"):
        fit(made(5), PLAIN, method="platt")
