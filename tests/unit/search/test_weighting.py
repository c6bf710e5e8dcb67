from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calibration import calibration_for
from app.config import load_settings
from app.passage import Candidate
from app.querytext import read_query
from app.search import weighting
from app.search.weighting import (
    FEATURES,
    Weight,
    contributions,
    features,
    learned_weight,
    model_for,
    predict,
)
from app.tuning import SHIPPED, Tuning, WeightModel

FIXED = Weight(0.4, "default", "nothing has been tuned")
MINILM = "all-MiniLM-L6-v2"

UNHURRIED = settings(deadline=None)
"""No judgement of speed: the machine may be busy."""


def leg(**scores: float) -> list[Candidate]:
    return [Candidate(name, name, score) for name, score in scores.items()]


QUERY = read_query('what is ERR-4711 in the "upload queue"')
LEXICAL = leg(a=8.0, b=6.0, c=4.0, d=2.0, e=1.0)
DENSE = leg(b=1.8, a=1.7, d=1.6, x=1.2, c=1.0)


def model(**changes: Any) -> WeightModel:
    """Looks at dense_top (mean 1.5, scale 0.5) and words (mean 2, scale 1), and is sure."""
    size = len(FEATURES)
    mean, scale, coefficients = [0.0] * size, [1.0] * size, [0.0] * size
    for name, middle, width, slope in (("dense_top", 1.5, 0.5, 1.0), ("words", 2.0, 1.0, -0.5)):
        place = FEATURES.index(name)
        mean[place], scale[place], coefficients[place] = middle, width, slope
    given = {
        "features": FEATURES,
        "mean": mean,
        "scale": scale,
        "coefficients": [*coefficients, 0.25],
        "covariance": [[0.0] * (size + 1) for _ in range(size + 1)],
        "embedding_model": MINILM,
        "normalization": "min_max",
        **changes,
    }
    return WeightModel.model_validate(given)


def test_features_by_hand() -> None:
    found = dict(zip(FEATURES, features(QUERY, LEXICAL, DENSE).tolist(), strict=True))
    shares = np.array([7, 5, 3, 1]) / 16
    dense_shares = np.array([0.8, 0.7, 0.6, 0.2]) / 2.3
    pairs = np.array([(8.0, 1.7), (6.0, 1.8), (4.0, 1.0), (2.0, 1.6)])
    assert found == pytest.approx(
        {
            "words": math.log1p(QUERY.words),
            "question": 1.0,
            "codes": math.log(2),
            "quoted": 1.0,
            "lexical_per_word": 8.0 / QUERY.words,
            "lexical_gap10": 7 / 8,
            "lexical_spread": 7 / 8,
            "lexical_entropy": -(shares * np.log(shares)).sum() / math.log(5),
            "dense_top": 1.8,
            "dense_gap10": 0.8,
            "dense_spread": 0.8,
            "dense_entropy": -(dense_shares * np.log(dense_shares)).sum() / math.log(5),
            "overlap10": 0.4,
            "overlap50": 4 / 50,
            "lexical_best_in_dense": 0.7 / 0.8,
            "dense_best_in_lexical": 5 / 7,
            "correlation": np.corrcoef(pairs.T)[0, 1],
        }
    )


def test_features_of_nothing() -> None:
    found = dict(zip(FEATURES, features(read_query("pump"), [], []).tolist(), strict=True))
    assert {name for name, value in found.items() if value} == {"words"}
    alike = dict(zip(FEATURES, features(read_query("pump"), leg(a=1.0, b=1.0), leg(a=1.0)).tolist(), strict=True))
    assert (alike["lexical_entropy"], alike["lexical_spread"], alike["correlation"]) == (1.0, 0.0, 0.0)


candidates = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.floats(0, 50)), unique_by=lambda pair: pair[0], max_size=12
).map(lambda pairs: [Candidate(name, name, score) for name, score in sorted(pairs, key=lambda pair: -pair[1])])


@UNHURRIED
@given(st.text(max_size=80), candidates, candidates)
def test_features_are_numbers_whatever_comes(text: str, lexical: list[Candidate], dense: list[Candidate]) -> None:
    query = read_query(text)
    values = features(query, lexical, dense)
    assert values.shape == (len(FEATURES),)
    assert np.isfinite(values).all()
    weight = learned_weight(model(), FIXED, query, lexical, dense)
    assert 0 <= weight.alpha <= 1
    assert weight.reason


def test_prediction_by_hand() -> None:
    values = np.zeros(len(FEATURES))
    values[FEATURES.index("dense_top")], values[FEATURES.index("words")] = 2.0, 3.0
    alpha, deviation, strangeness = predict(model(), values)
    assert alpha == pytest.approx(1 / (1 + math.exp(-(1.0 - 0.5 + 0.25))))
    assert deviation == 0.0
    assert strangeness == pytest.approx(math.sqrt(2 / len(FEATURES)))


def test_a_single_strange_value_does_not_decide() -> None:
    values = np.zeros(len(FEATURES))
    values[FEATURES.index("words")] = 2.0
    values[FEATURES.index("dense_top")] = 1e9
    alpha, _, strangeness = predict(model(), values)
    assert alpha == pytest.approx(1 / (1 + math.exp(-3.25)))  # three deviations at most
    assert strangeness == pytest.approx(math.sqrt(36 / len(FEATURES)))  # six


def test_the_deviation_of_the_logit_is_that_of_the_coefficients() -> None:
    size = len(FEATURES) + 1
    covariance = np.zeros((size, size))
    place = FEATURES.index("dense_top")
    covariance[place, place], covariance[-1, -1] = 0.09, 0.16
    covariance[place, -1] = covariance[-1, place] = 0.05
    values = np.zeros(len(FEATURES))
    values[place] = 2.5
    _, deviation, _ = predict(model(covariance=covariance.tolist()), values)
    assert deviation == pytest.approx(math.sqrt(4 * 0.09 + 0.16 + 2 * 2 * 0.05))


def test_a_prediction_that_is_trusted() -> None:
    query = read_query("one two three four five six seven eight")
    found = learned_weight(model(), FIXED, query, LEXICAL, DENSE)
    values = features(query, LEXICAL, DENSE)
    # the features that this model was told nothing of are as they are: far from usual
    assert predict(model(), values)[2] < weighting._STRANGE
    assert (found.source, found.alpha) == ("learned", round(predict(model(), values)[0], 4))
    assert found.reason.startswith("logit moved most by dense_top +0.60, words -0.1")
    assert found.features == {name: round(float(value), 4) for name, value in zip(FEATURES, values, strict=True)}


def test_a_prediction_that_is_not_sure_is_not_used() -> None:
    size = len(FEATURES) + 1
    unsure = model(covariance=[[1.0 if row == column else 0.0 for column in range(size)] for row in range(size)])
    found = learned_weight(unsure, FIXED, read_query("pump"), LEXICAL, DENSE)
    assert (found.alpha, found.source) == (0.4, "default")
    assert "was not used: the model is unsure" in found.reason
    assert found.features is not None


def test_a_query_unlike_the_training_data_gets_the_fixed_weight() -> None:
    strange = model(scale=[0.01] * len(FEATURES))
    found = learned_weight(strange, FIXED, read_query("pump"), LEXICAL, DENSE)
    assert (found.alpha, found.source) == (0.4, "default")
    assert "was not used: the query is unlike the training data" in found.reason
    assert found.features is not None


@pytest.mark.parametrize(("lexical", "dense"), [([], DENSE), (LEXICAL, []), ([], [])])
def test_an_empty_leg_leaves_nothing_to_weigh(lexical: list[Candidate], dense: list[Candidate]) -> None:
    found = learned_weight(model(), FIXED, read_query("pump"), lexical, dense)
    assert (found.alpha, found.source, found.features) == (0.4, "default", None)
    assert "one leg found nothing" in found.reason


def test_contributions_strongest_first() -> None:
    values = np.zeros(len(FEATURES))
    values[FEATURES.index("dense_top")], values[FEATURES.index("words")] = 2.0, 6.0
    found = contributions(model(), values)
    assert found[:2] == [("words", pytest.approx(-1.5)), ("dense_top", pytest.approx(1.0))]  # words: cut at three
    assert [share for _, share in found[2:]] == [0.0] * (len(FEATURES) - 2)
    logit = sum(share for _, share in found) + 0.25
    assert predict(model(), values)[0] == pytest.approx(1 / (1 + math.exp(-logit)))


def chosen(tuning: Tuning, name: str) -> WeightModel | None:
    return model_for(tuning, name, calibration_for(load_settings().embedding, name))


def test_the_shipped_model_is_whole() -> None:
    shipped = chosen(SHIPPED, MINILM)
    assert shipped is not None
    assert shipped.features == FEATURES
    assert len(shipped.mean) == len(shipped.scale) == len(FEATURES)
    assert len(shipped.coefficients) == len(FEATURES) + 1 == len(shipped.covariance)
    assert all(len(row) == len(FEATURES) + 1 for row in shipped.covariance)
    assert min(shipped.scale) > 0
    covariance = np.asarray(shipped.covariance)
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-6
    usual = np.asarray(shipped.mean)
    alpha, deviation, strangeness = predict(shipped, usual)
    assert 0.2 < alpha < 0.6
    assert deviation < weighting._UNSURE
    assert strangeness == 0.0


@pytest.mark.parametrize("name", [MINILM, f"{MINILM}-int8", f"{MINILM}-fp16"])
def test_precisions_of_one_model_share_a_model_of_weights(name: str) -> None:
    assert chosen(SHIPPED, name) is not None


@pytest.mark.parametrize(
    ("tuning", "name"),
    [
        (SHIPPED, "some-other-model"),
        (Tuning(version=1, normalization="l2"), MINILM),
        (Tuning(version=1, learned=False), MINILM),
        (Tuning(version=1, learned=False, weight_model=model()), MINILM),
        (Tuning(version=1, weight_model=model(embedding_model="e5-small-v2")), MINILM),
        (Tuning(version=1, weight_model=model(normalization="z_score")), MINILM),
        (Tuning(version=1, weight_model=model(features=FEATURES[::-1])), MINILM),
    ],
)
def test_a_model_that_does_not_fit_is_not_used(tuning: Tuning, name: str) -> None:
    assert chosen(tuning, name) is None


def test_a_model_that_was_tuned_with_int8_serves_int8() -> None:
    own = model(embedding_model=f"{MINILM}-int8")
    assert chosen(Tuning(version=1, weight_model=own), f"{MINILM}-int8") is own


def test_a_tuning_s_own_model_comes_first() -> None:
    own = model(embedding_model="e5-small-v2", normalization="z_score")
    tuning = Tuning(version=1, normalization="z_score", weight_model=own)
    assert chosen(tuning, "e5-small-v2-int8") is own
