from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.search.plan import choose
from app.search.request import SearchRequest
from app.search.terms import bounded_terms


def parse(body: str) -> SearchRequest:
    return SearchRequest.model_validate_json(body)


def test_defaults() -> None:
    request = parse('{"query": "x"}')
    assert (request.mode, request.size, request.from_, request.fusion.method) == ("hybrid", 10, 0, "linear")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ('{"query": ""}', ("query",)),
        ('{"query": " \\t"}', ("query",)),
        ('{"query": "a\\u0000b"}', ("query",)),
        ('{"query": 7}', ("query",)),
        ("{}", ("query",)),
        ('{"query": "x", "size": "10"}', ("size",)),
        ('{"query": "x", "size": 0}', ("size",)),
        ('{"query": "x", "size": -1}', ("size",)),
        ('{"query": "x", "size": 1e9}', ("size",)),
        ('{"query": "x", "size": true}', ("size",)),
        ('{"query": "x", "from": -1}', ("from",)),
        ('{"query": "x", "from_": 1}', ("from_",)),
        ('{"query": "x", "mode": "fuzzy"}', ("mode",)),
        ('{"query": "x", "fusion": {"alpha": 1.01}}', ("fusion", "alpha")),
        ('{"query": "x", "fusion": {"alpha": NaN}}', ()),
        ('{"query": "x", "fusion": {"method": "rrf", "alpha": 0.5}}', ("fusion",)),
        ('{"query": "x", "filter": {"source": ["a"]}}', ("filter", "source")),
        ('{"query": "x", "filter": {"source_id": "a"}}', ("filter", "source_id")),
        ('{"query": "x", "filter": {"source_id": []}}', ("filter", "source_id")),
        ('{"query": "x", "filter": {"source_type": ["exe"]}}', ("filter", "source_type", 0)),
        ('{"query": "x", "filter": {"timestamp": {"gte": "yesterday"}}}', ("filter", "timestamp", "gte")),
        ('{"query": "x", "filter": {"timestamp": {"gte": "2024-02-30"}}}', ("filter", "timestamp", "gte")),
        ('{"query": "x", "filter": {"timestamp": {"gte": "1700000000"}}}', ("filter", "timestamp", "gte")),
        ('{"query": "x", "filter": {"timestamp": {"gte": "2024-01-01", "gt": "2024-01-01"}}}', ("filter", "timestamp")),
        ('{"query": "x", "filter": {"timestamp": {}}}', ("filter", "timestamp")),
        ('{"query": "x", "timeout_ms": 0}', ("timeout_ms",)),
        ('{"query": "x", "sort": "date"}', ("sort",)),
    ],
)
def test_bad_input_names_its_place(body: str, loc: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(body)
    assert loc in [error["loc"] for error in caught.value.errors()] or loc == ()


def test_a_query_may_be_long_but_not_huge() -> None:
    assert parse(f'{{"query": "{"a " * 2000}"}}')
    with pytest.raises(ValidationError, match="4096"):
        parse(f'{{"query": "{"a" * 100_000}"}}')


def test_tags_are_folded_and_dates_kept() -> None:
    wanted = parse(
        '{"query": "x", "filter": {"topic_tags": [" HR "], "timestamp": {"lte": "2024-05-31",'
        ' "gt": "2024-01-01T00:00:00Z"}}}'
    ).filter.passage_filter()
    assert wanted.topic_tags == ("hr",)
    assert dict(wanted.timestamp) == {"lte": "2024-05-31", "gt": "2024-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("extra", "shards", "across", "way"),
    [
        ('"mode": "lexical"', 1, False, "lexical"),
        ('"mode": "dense"', 6, False, "dense"),
        ('"size": 5', 1, False, "native"),
        ('"fusion": {"method": "rrf"}', 1, False, "native"),
        ('"fusion": {"method": "rrf"}', 3, False, "legs"),
        ('"fusion": {"method": "rrf"}', 3, True, "native"),
        ('"fusion": {"alpha": 0.2}', 1, False, "native"),
        ('"fusion": {"alpha": 0.2}', 3, True, "legs"),
        ('"explain": true', 1, False, "legs"),
    ],
)
def test_the_rule_of_the_ways(extra: str, shards: int, across: bool, way: str) -> None:
    plan = choose(parse(f'{{"query": "x", {extra}}}'), shards=shards, native_rrf_across_shards=across)
    assert plan.way == way
    assert plan.reason


def test_terms_are_bounded() -> None:
    assert bounded_terms("two words") == ("two words", False)
    assert bounded_terms("a b c d", limit=2) == ("a b ", True)
    assert bounded_terms("漢字漢字", limit=2) == ("漢字", True)
    cut, was_cut = bounded_terms(",".join("x" * 1 for _ in range(2000)))
    assert was_cut
    assert cut.count("x") == 1000
