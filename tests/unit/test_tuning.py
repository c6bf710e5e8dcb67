from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.tuning import SHIPPED, Tuning, WeightModel

MODEL: dict[str, Any] = {
    "features": ["words", "codes"],
    "mean": [1.0, 0.0],
    "scale": [1.0, 0.5],
    "coefficients": [0.1, -0.2, 0.0],
    "covariance": [[0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]],
    "embedding_model": "all-MiniLM-L6-v2",
    "normalization": "min_max",
}


def test_a_tuning_reads_back_as_it_was_written() -> None:
    tuning = SHIPPED.model_copy(update={"version": 3, "weight_model": WeightModel.model_validate(MODEL)})
    assert Tuning.model_validate_json(tuning.model_dump_json()) == tuning


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": [1.0]},
        {"scale": [1.0, 0.0]},
        {"scale": [1.0]},
        {"coefficients": [0.1, 0.2]},
        {"covariance": [[0.1, 0.0], [0.0, 0.1]]},
        {"coefficients": [0.1, float("nan"), 0.0]},
        {"colour": "blue"},
    ],
)
def test_a_model_of_no_shape_is_refused_when_it_is_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WeightModel.model_validate(MODEL | wrong)


@pytest.mark.parametrize("wrong", [{"alpha": 2}, {"candidates": 5}, {"bm25": {"k1": -1}}, {"boosts": {"title": 1000}}])
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Tuning.model_validate(wrong)
