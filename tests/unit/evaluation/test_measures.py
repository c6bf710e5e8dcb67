from __future__ import annotations

from math import log2

import pytest

from app.evaluation.measures import MEASURES, measure


def values(qrels: dict[str, int], ranking: list[str]) -> dict[str, float]:
    measured = measure({"q": qrels}, {"q": ranking})
    assert measured.means == {name: per_query["q"] for name, per_query in measured.per_query.items()}
    assert list(measured.means) == list(MEASURES)
    return measured.means


def test_by_hand() -> None:
    found = values({"a": 2, "b": 1, "c": 0, "x": 1}, ["n1", "a", "c", "b"])
    ideal = 2 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert found == pytest.approx(
        {
            "NDCG@10": (2 / log2(3) + 1 / log2(5)) / ideal,
            "MRR@10": 1 / 2,
            "Recall@100": 2 / 3,
            "MAP": (1 / 2 + 2 / 4) / 3,
            "P@5": 2 / 5,
            "judged@10": 3 / 4,
        }
    )


def test_judged_below_zero_is_judged_and_not_relevant() -> None:
    ranking = ["bad", "a", "n"]
    assert values({"a": 3, "bad": -2}, ranking) == values({"a": 3, "bad": 0}, ranking)
    assert values({"a": 3, "bad": -2}, ranking)["judged@10"] == pytest.approx(2 / 3)


def test_the_order_is_that_of_the_ranking_whatever_the_ids() -> None:
    for ranking in (["z", "a", "m"], ["a", "z", "m"]):
        assert values({"z": 1}, ranking)["MRR@10"] == 1 / (1 + ranking.index("z"))
        assert values({"z": 1}, ranking)["MAP"] == 1 / (1 + ranking.index("z"))


def test_depths() -> None:
    ranking = [f"n{number}" for number in range(100)]
    ranking[10] = "eleventh"
    found = values({"eleventh": 1, "beyond": 1}, [*ranking, "beyond"])
    assert (found["NDCG@10"], found["MRR@10"], found["P@5"], found["judged@10"]) == (0, 0, 0, 0)
    assert found["Recall@100"] == 0.5
    assert found["MAP"] == pytest.approx((1 / 11 + 2 / 101) / 2)


def test_queries_without_a_ranking_count_as_zero() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}}
    measured = measure(qrels, {"q1": ["a"], "q2": [], "other": ["a"]})
    assert measured.missing == 2
    assert measured.means["NDCG@10"] == pytest.approx(1 / 3)
    assert measured.per_query["judged@10"] == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert all(list(per_query) == ["q1", "q2", "q3"] for per_query in measured.per_query.values())


def test_nothing_found_at_all() -> None:
    assert set(measure({"q": {"a": 1}}, {}).means.values()) == {0.0}


def test_misuse() -> None:
    with pytest.raises(ValueError, match="twice"):
        measure({"q": {"a": 1}}, {"q": ["a", "b", "a"]})
    with pytest.raises(ValueError, match="no judged queries"):
        measure({}, {})
