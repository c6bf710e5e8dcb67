from __future__ import annotations

import random

import numpy as np
import pytest

from app.evaluation.learning import GRID
from app.evaluation.measures import measure
from app.evaluation.objective import MeasureName, Objective, examples
from app.evaluation.ranking import NormalizedLegs, normalize_all
from tests.unit.evaluation.legs import query_legs

NAMES: tuple[MeasureName, ...] = ("NDCG@10", "MRR@10")


def qrels_and_rankings(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    draw = random.Random(seed)
    documents = [f"d{number}" for number in range(30)]
    qrels = {
        f"q{number}": {
            **{name: draw.choice((-1, 0, 1, 2, 3)) for name in draw.sample(documents, draw.randint(1, 12))},
            draw.choice(documents): 1,
        }
        for number in range(40)
    }
    rankings = {query: draw.sample(documents, draw.randint(0, 30)) for query in list(qrels)[:35]}
    return qrels, rankings


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_its_values_are_those_of_the_measures(name: MeasureName, seed: int) -> None:
    qrels, rankings = qrels_and_rankings(seed)
    objective = Objective(qrels, name)
    wanted = measure(qrels, rankings).per_query[name]
    assert objective.queries == list(qrels)
    for _ in range(2):  # the evaluator is used many times over
        assert objective.values(rankings).tolist() == pytest.approx([wanted[query] for query in qrels], abs=1e-12)
    assert wanted["q39"] == 0.0


def test_rankings_of_queries_that_nobody_judged_count_nothing() -> None:
    qrels, rankings = qrels_and_rankings(1)
    few = {query: qrels[query] for query in list(qrels)[3:9]}
    objective = Objective(few, "NDCG@10")
    assert objective.values(rankings).tolist() == Objective(qrels, "NDCG@10").values(rankings)[3:9].tolist()
    assert objective.values({}).tolist() == [0.0] * 6


def test_curves_and_shares_are_the_measure_of_the_rankings_there() -> None:
    draw = random.Random(4)
    qrels = {f"q{number}": {f"d{draw.randrange(20)}": 1} for number in range(12)}
    legs = {
        query: query_legs(
            {f"d{name}": draw.random() for name in draw.sample(range(20), 12)},
            {f"d{name}": draw.random() for name in draw.sample(range(20), 12)},
        )
        for query in list(qrels)[:-1]
    }
    prepared = normalize_all(legs, "min_max")
    objective = Objective(qrels, "NDCG@10")
    curves = objective.curves(prepared)
    assert curves.shape == (12, len(GRID))
    assert curves[-1].tolist() == [0.0] * len(GRID)  # it failed: nothing is known of it
    for column, alpha in enumerate(GRID.tolist()):
        wanted = measure(qrels, {query: item.ranking(alpha) for query, item in prepared.items()}).per_query["NDCG@10"]
        assert curves[:, column].tolist() == pytest.approx(list(wanted.values()), abs=1e-12)
        assert objective.at(prepared, alpha).tolist() == curves[:, column].tolist()
    columns = {query: draw.randrange(len(GRID)) for query in prepared}
    each = objective.values({query: item.ranking(float(GRID[columns[query]]), 10) for query, item in prepared.items()})
    assert each[:-1].tolist() == [curves[row, columns[query]] for row, query in enumerate(prepared)]


def test_examples_keep_the_order_of_the_queries() -> None:
    objective = Objective({"b": {"d": 1}, "a": {"d": 1}}, "MRR@10")
    prepared = {
        "a": NormalizedLegs.of(query_legs({"d": 2.0, "e": 1.0}, {"d": 0.9, "e": 0.1}), "min_max"),
        "b": NormalizedLegs.of(query_legs({"d": 2.0, "e": 1.0}, {"d": 0.1, "e": 0.9}), "min_max"),
    }
    curves = objective.curves(prepared)
    found = examples({"a": np.full(17, 1.0), "b": np.full(17, 2.0)}, objective, curves)
    assert found.features[:, 0].tolist() == [2.0, 1.0]
    assert found.curves[:, -1].tolist() == [0.5, 1.0]
