from __future__ import annotations

from typing import Any

import pytest

from app.features import Features
from app.search.plan import choose
from app.search.request import SearchRequest

USUAL = {
    "wanted": "native",
    "shards": 1,
    "native_rrf_across_shards": False,
    "native_linear": True,
    "exact": False,
}
RRF = {"fusion": {"method": "rrf"}}


@pytest.mark.parametrize(
    ("body", "given", "way", "because"),
    [
        # the mode comes before all else
        ({"mode": "lexical"}, {}, "lexical", "mode lexical"),
        ({"mode": "dense"}, {"shards": 6}, "dense", "mode dense"),
        ({"mode": "lexical"}, {"wanted": "legs"}, "lexical", "mode lexical"),
        ({"mode": "dense", "explain": True}, {"exact": True}, "dense", "mode dense"),
        # the setting
        ({}, {"wanted": "legs"}, "legs", "side by side"),
        (RRF, {"wanted": "legs"}, "legs", "side by side"),
        ({}, {}, "native", "one native hybrid request"),
        ({"fusion": {"alpha": 0.2}}, {}, "native", "one native hybrid request"),
        (RRF, {}, "native", "one native hybrid request"),
        ({"explain": True}, {}, "native", "one native hybrid request"),
        ({**RRF, "explain": True}, {}, "native", "one native hybrid request"),
        ({"max_per_document": 1, "fold_duplicates": True, "mmr": True}, {}, "native", "one native hybrid request"),
        ({}, {"features": Features(early_exit=True)}, "native", "one native hybrid request"),
        # what only the service can do
        ({}, {"exact": True}, "legs", "identifiers"),
        (RRF, {"exact": True}, "legs", "identifiers"),
        ({}, {"native_linear": False}, "legs", "normalisation is not native"),
        (RRF, {"native_linear": False}, "native", "one native hybrid request"),
        # shards
        ({}, {"shards": 3}, "native", "one native hybrid request"),
        (RRF, {"shards": 3}, "legs", "ranks per shard on this version, and there are 3 shards"),
        (RRF, {"shards": 3, "native_rrf_across_shards": True}, "native", "one native hybrid request"),
    ],
)
def test_the_rule_of_the_ways(body: dict[str, Any], given: dict[str, Any], way: str, because: str) -> None:
    request = SearchRequest.model_validate({"query": "x", **body})
    plan = choose(request, **{**USUAL, **given})
    assert plan.way == way
    assert because in plan.reason
