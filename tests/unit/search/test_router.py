"""Which way a search takes: flags, the query's shape, the lexical lead, and the time that is left."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import FeatureDisabled
from app.features import ALL_ON, Features
from app.querytext import read_query
from app.search.plan import EARLY_EXIT_MARGIN, Plan, after_lexical, choose, is_code, leads
from app.search.request import SearchRequest

EARLY = Features(early_exit=True)


def way(features: Features = ALL_ON, **body: Any) -> Plan:
    request = SearchRequest.model_validate({"query": "the valve", **body})
    query = read_query(request.query)
    return choose(
        request,
        wanted="legs",
        shards=1,
        native_rrf_across_shards=False,
        native_linear=True,
        exact=query.exact,
        features=features,
        query=query,
    )


def test_a_flag_takes_its_leg_away_and_that_is_stated() -> None:
    plan = way(Features(lexical=False))
    assert (plan.way, plan.reason) == ("dense", "the flag lexical is off")
    assert plan.stated == (("lexical", "switched-off: the flag lexical is off, only the vector leg ran"),)
    plan = way(Features(vector=False))
    assert (plan.way, plan.reason) == ("lexical", "the flag vector is off")
    assert plan.stated == (("vector", "switched-off: the flag vector is off, only the lexical leg ran"),)
    assert way().stated == ()


@pytest.mark.parametrize(
    ("features", "mode", "named"),
    [
        (Features(lexical=False, vector=False), "hybrid", "'lexical' and 'vector'"),
        (Features(lexical=False), "lexical", "'lexical'"),
        (Features(vector=False), "dense", "'vector'"),
    ],
)
def test_what_can_not_be_searched_names_the_flag(features: Features, mode: str, named: str) -> None:
    with pytest.raises(FeatureDisabled, match=named) as caught:
        way(features, mode=mode)
    assert caught.value.status == 501


def test_the_other_flag_does_not_touch_a_mode() -> None:
    assert way(Features(lexical=False), mode="dense").way == "dense"
    assert way(Features(vector=False), mode="lexical").way == "lexical"


@pytest.mark.parametrize("query", ["ERR-4711", '"ERR-4711"', " err-4711? ", "KB5012170, KB5012171"])
def test_a_query_of_identifiers_alone_may_end_with_the_lexical_leg(query: str) -> None:
    assert is_code(read_query(query))
    assert (way(query=query).way, way(query=query).exit) == ("legs", "code")


@pytest.mark.parametrize("query", ["ERR-4711 valve", "what is ERR-4711", "il-6", "the valve", "2024", '"blue valve"'])
def test_any_other_query_may_not(query: str) -> None:
    assert not is_code(read_query(query))
    assert way(query=query).exit == "never"


@pytest.mark.parametrize(
    "body",
    [
        {"fusion": {"alpha": 0.5}},
        {"fusion": {"method": "rrf"}},
        {"fusion": {"normalization": "z_score"}},
        {"rerank": True},
        {"rerank": {"depth": 5}},
    ],
)
def test_a_request_that_says_how_gets_both_legs(body: dict[str, Any]) -> None:
    assert way(EARLY, query="ERR-4711", **body).exit == "never"
    assert way(EARLY, **body).exit == "never"


def test_early_exit_is_a_flag() -> None:
    assert (way().exit, way(EARLY).exit, way(EARLY, query="ERR-4711").exit) == ("never", "lead", "code")


def test_all_identifiers_must_be_there_as_they_are_written() -> None:
    query = read_query("KB5012170 KB5012171")
    plan = way(query=query.text)
    assert after_lexical(plan, query, [9.0], ["kb5012170"]) is None
    ended = after_lexical(plan, query, [9.0], ["kb5012171", "kb5012170"])
    assert ended is not None
    assert (ended.way, ended.early) == ("lexical", True)
    assert "kb5012170, kb5012171" in ended.reason


def test_a_lead_decides_only_where_the_flag_is_on() -> None:
    query, scores = read_query("the valve"), [10.0, 10.0 * (1 - EARLY_EXIT_MARGIN) - 0.1, 0.5]
    assert after_lexical(way(), query, scores, []) is None
    ended = after_lexical(way(EARLY), query, scores, [])
    assert ended is not None
    assert ended.early
    assert "early exit" in ended.reason
    assert after_lexical(way(EARLY), query, [10.0, 9.9], []) is None


@pytest.mark.parametrize(
    ("scores", "enough"), [([], False), ([3.0], False), ([4.0, 2.0], True), ([4.0, 2.1], False), ([0.0, 0.0], False)]
)
def test_a_lead_is_a_share_of_the_best_score(scores: list[float], enough: bool) -> None:
    assert leads(scores, 0.5) is enough
