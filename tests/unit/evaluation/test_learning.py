from __future__ import annotations

import numpy as np
import pytest

from app.evaluation import learning
from app.evaluation.learning import GRID, Array, Examples, best_fixed, fit, join, shares_of, value_at
from app.search.weighting import FEATURES, predict
from app.tuning import WeightModel

COLUMN = FEATURES.index("lexical_per_word")


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap is most of the work, and most of these tests are of the rest."""
    monkeypatch.setattr(learning, "_BOOTSTRAP", 5)


def made_up(count: int, seed: int, slope: float = 1.5, column: int = COLUMN, noise: float = 0.1) -> Examples:
    """Queries whose best share is a logistic function of one feature, and whose value falls off around it."""
    random = np.random.default_rng(seed)
    values = random.normal(3.0, 2.0, (count, len(FEATURES)))
    curves = np.exp(-((GRID[None, :] - best_of(values, slope, column)[:, None]) ** 2) / 0.05)
    return Examples.of(list(values), list(curves + random.normal(0, noise, curves.shape)))


def best_of(values: Array, slope: float = 1.5, column: int = COLUMN) -> Array:
    shares: Array = 1 / (1 + np.exp(-slope * (values[:, column] - 3.0) / 2.0))
    return shares


def train(examples: Examples, **options: object) -> WeightModel:
    return fit(examples, embedding_model="m", normalization="min_max", **options)  # type: ignore[arg-type]


def numbers(model: WeightModel) -> Array:
    return np.concatenate(
        [model.mean, model.scale, model.coefficients, np.array(model.covariance, np.float64).reshape(-1)]
    )


def test_it_finds_the_feature_that_decides_and_beats_the_best_fixed_share_on_other_queries() -> None:
    model = train(made_up(300, 1))
    fresh = made_up(500, 2)
    learned = value_at(fresh.curves, shares_of(model, fresh.features))
    fixed = value_at(fresh.curves, best_fixed(made_up(300, 1)))
    assert learned.mean() > fixed.mean() + 0.1
    assert learned.mean() > 0.9
    coefficients = np.abs(model.coefficients[:-1])
    assert coefficients.argmax() == COLUMN
    assert coefficients[COLUMN] > 4 * np.delete(coefficients, COLUMN).max()
    assert np.corrcoef(shares_of(model, fresh.features), best_of(fresh.features))[0, 1] > 0.95


def test_where_nothing_decides_it_stays_near_the_best_fixed_share() -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(200, len(FEATURES)))
    curve = np.exp(-((GRID - 0.3) ** 2) / 0.05)
    same = Examples.of(list(features), [curve + random.normal(0, 0.2, curve.shape) for _ in range(200)])
    shares = shares_of(train(same), features)
    assert np.abs(shares - 0.3).max() < 0.2
    assert best_fixed(same) == pytest.approx(0.3, abs=0.1)


def test_the_service_predicts_what_was_trained() -> None:
    model = train(made_up(60, 4))
    values = made_up(20, 5).features * 3  # some are beyond what is cut
    found = [predict(model, row)[0] for row in values]
    assert found == pytest.approx(shares_of(model, values).tolist(), abs=1e-12)


def test_few_examples_move_a_model_of_other_collections_little() -> None:
    start = train(made_up(300, 6))
    others = made_up(300, 7, slope=-1.5)  # the opposite holds here
    models = {count: train(others.take(np.arange(count)), start=start) for count in (2, 20, 300)}
    away = {count: np.abs(np.array(model.coefficients) - start.coefficients) for count, model in models.items()}
    weights = {count: float(found[:-1].max()) for count, found in away.items()}
    assert weights[2] < weights[20] < weights[300]
    assert weights[2] < 0.1
    assert weights[300] > 0.5
    assert away[2][-1] < 1.0  # the share as a whole may move sooner than what each feature means
    moved, fresh = models[300], made_up(300, 8, slope=-1.5)
    assert (moved.mean, moved.scale) == (start.mean, start.scale)
    before, after = (value_at(fresh.curves, shares_of(model, fresh.features)).mean() for model in (start, moved))
    assert after > before + 0.1


def test_examples_that_agree_with_the_start_leave_it_good() -> None:
    start = train(made_up(400, 9))
    again = train(made_up(15, 10), start=start)
    fresh = made_up(300, 11)
    before, after = (value_at(fresh.curves, shares_of(m, fresh.features)).mean() for m in (start, again))
    assert after == pytest.approx(before, abs=0.02)


def test_the_same_seed_gives_the_same_model() -> None:
    examples = made_up(80, 12)
    first, again, other = train(examples), train(examples), train(examples, seed=1)
    assert first == again
    assert first.coefficients == other.coefficients  # the seed is the bootstrap's alone
    assert first.covariance != other.covariance


def test_a_model_is_json_and_back() -> None:
    model = train(made_up(40, 13), about={"set": "s", "queries": 40})
    assert WeightModel.model_validate_json(model.model_dump_json()) == model
    assert WeightModel.model_validate(model.model_dump(mode="json")) == model
    assert (model.features, model.embedding_model, model.normalization) == (FEATURES, "m", "min_max")
    assert len(model.covariance) == len(model.covariance[0]) == len(model.coefficients) == len(FEATURES) + 1


def test_the_bootstrap_is_surer_with_more_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_BOOTSTRAP", 20)
    deviations = [predict(train(made_up(count, 14, noise=0.3)), made_up(1, 15).features[0])[1] for count in (30, 300)]
    assert deviations[1] < deviations[0]


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("curve", [np.zeros(len(GRID)), np.ones(len(GRID)), GRID, 1 - GRID])
def test_no_number_is_lost_where_there_is_little_to_learn(
    count: int, curve: Array, start: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_BOOTSTRAP", 2)
    constant = Examples.of([np.full(len(FEATURES), 0.5)] * count, [curve] * count)
    model = train(constant, start=train(made_up(30, 16)) if start else None)
    assert np.isfinite(numbers(model)).all()
    shares = shares_of(model, np.array([np.zeros(len(FEATURES)), np.full(len(FEATURES), 1e9)]))
    assert np.isfinite(shares).all()
    assert ((shares >= 0) & (shares <= 1)).all()


def test_each_collection_counts_the_same_whatever_its_size() -> None:
    def at(share: float, count: int) -> Examples:
        curve = 1 - np.abs(GRID - share)
        return Examples.of([np.zeros(len(FEATURES))] * count, [curve] * count)

    both = join([at(0.2, 1000), at(0.8, 10), at(0.8, 10)])
    assert len(both) == 1020
    assert both.weights.sum() == pytest.approx(3.0)
    assert best_fixed(both) == pytest.approx(0.8)


def test_values_lie_on_the_lines_between_the_points() -> None:
    curves = np.array([GRID**2, 1 - GRID])
    assert value_at(curves, 0.55).tolist() == pytest.approx([0.3025, 0.45])
    assert value_at(curves, np.array([0.525, 1.0])).tolist() == pytest.approx([(0.25 + 0.3025) / 2, 0.0])
