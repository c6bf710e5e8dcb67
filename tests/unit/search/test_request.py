from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.search.request import AnswerRequest, SearchRequest
from app.store.filters import Scope, clauses


def parse(body: str) -> SearchRequest:
    return SearchRequest.model_validate_json(body)


def test_defaults() -> None:
    request = parse('{"query": "x"}')
    assert (request.mode, request.size, request.from_, request.fusion.method) == ("hybrid", 10, 0, "linear")
    assert (request.candidates, request.fusion.alpha, request.fusion.learned, request.fusion.normalization) == (
        None,
    ) * 4
    assert (request.max_per_document, request.fold_duplicates, request.mmr_lambda) == (None, False, None)
    assert (request.highlight, request.explain, request.cache) == (False, False, True)


def test_an_answer_wants_variety() -> None:
    request = AnswerRequest.model_validate_json('{"query": "x"}')
    assert (request.max_per_document, request.fold_duplicates, request.context_size) == (3, True, None)


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
        ('{"query": "x", "filter": {"not": {}}}', ("filter", "not")),
        ('{"query": "x", "filter": {"not": {"source_id": []}}}', ("filter", "not", "source_id")),
        ('{"query": "x", "filter": {"not": {"source": ["a"]}}}', ("filter", "not", "source")),
        ('{"query": "x", "filter": {"not": {"acl": ["hr"]}}}', ("filter", "not", "acl")),
        ('{"query": "x", "filter": {"not": {"acl_1": ["hr"]}}}', ("filter", "not", "acl_1")),
        ('{"query": "x", "filter": {"not": {"tenant": ["x"]}}}', ("filter", "not", "tenant")),
        ('{"query": "x", "filter": {"not": {"not": {"source_id": ["a"]}}}}', ("filter", "not", "not")),
        ('{"query": "x", "filter": {"not_": {"source_id": ["a"]}}}', ("filter", "not_")),
        (f'{{"query": "x", "filter": {{"not": {{"pages": {[*range(1, 10_001)]}}}}}}}', ("filter", "not", "pages")),
        ('{"query": "x", "filter": {"not": {"timestamp": {}}}}', ("filter", "not", "timestamp")),
        ('{"query": "x", "filter": {"pages": [1, 2], "not": {"pages": [2]}}}', ("filter",)),
        ('{"query": "x", "size": 10000}', ("size",)),
        ('{"query": "x", "timeout_ms": 0}', ("timeout_ms",)),
        ('{"query": "x", "candidates": 9}', ("candidates",)),
        ('{"query": "x", "candidates": 1001}', ("candidates",)),
        ('{"query": "x", "candidates": "100"}', ("candidates",)),
        ('{"query": "x", "fusion": {"learned": 1}}', ("fusion", "learned")),
        ('{"query": "x", "fusion": {"learned": true, "alpha": 0.5}}', ("fusion",)),
        ('{"query": "x", "fusion": {"method": "rrf", "learned": true}}', ("fusion",)),
        ('{"query": "x", "fusion": {"method": "rrf", "normalization": "l2"}}', ("fusion",)),
        ('{"query": "x", "fusion": {"normalization": "softmax"}}', ("fusion", "normalization")),
        ('{"query": "x", "fusion": {"weights": [1, 2]}}', ("fusion", "weights")),
        ('{"query": "x", "max_per_document": 0}', ("max_per_document",)),
        ('{"query": "x", "max_per_document": 101}', ("max_per_document",)),
        ('{"query": "x", "fold_duplicates": "yes"}', ("fold_duplicates",)),
        ('{"query": "x", "mmr": {"lambda": 1.5}}', ("mmr", "MmrRequest", "lambda")),
        ('{"query": "x", "mmr": {"lambda_": 0.5}}', ("mmr", "MmrRequest", "lambda_")),
        ('{"query": "x", "mmr": 1}', ("mmr", "bool")),
        ('{"query": "x", "highlight": "text"}', ("highlight",)),
        ('{"query": "x", "explain": 1}', ("explain",)),
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
    assert wanted.wanted["topic_tags"] == ("hr",)
    assert dict(wanted.wanted["timestamp"]) == {"lte": "2024-05-31", "gt": "2024-01-01T00:00:00+00:00"}


def test_what_is_left_out_is_read_like_what_is_wanted() -> None:
    found = parse(
        '{"query": "x", "filter": {"topic_tags": ["hr"], "not": {"topic_tags": [" Draft "], "source_type": ["pdf"],'
        ' "timestamp": {"lte": "2024-05-31"}}}}'
    ).filter.passage_filter()
    assert found.wanted == {"topic_tags": ("hr",)}
    assert found.excluded == {
        "topic_tags": ("draft",),
        "source_type": ("pdf",),
        "timestamp": (("lte", "2024-05-31"),),
    }


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ('{"topic_tags": ["a", "HR"], "not": {"topic_tags": ["hr"]}}', "topic_tags and not.topic_tags both name 'hr'"),
        ('{"pages": [3], "not": {"pages": [3], "source_id": ["a"]}}', "pages and not.pages both name 3"),
        (
            '{"timestamp": {"lte": "2024-05-31"}, "not": {"timestamp": {"lte": "2024-05-31"}}}',
            "both name {'lte': '2024-05-31'}: remove it from one of them",
        ),
    ],
)
def test_a_filter_that_contradicts_itself_names_the_value(chosen: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(f'{{"query": "x", "filter": {chosen}}}')
    assert told in str(caught.value)


def test_whole_numbers_may_be_written_as_json_likes() -> None:
    request = parse('{"query": "x", "size": 5.0, "candidates": 5e1, "max_per_document": 2.0}')
    assert (request.size, request.candidates, request.max_per_document) == (5, 50, 2)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("false", None), ("true", 0.7), ("{}", 0.7), ('{"lambda": 0}', 0.0), ('{"lambda": 0.25}', 0.25)],
)
def test_the_lambda_of_mmr(given: str, wanted: float | None) -> None:
    assert parse(f'{{"query": "x", "mmr": {given}}}').mmr_lambda == wanted


@pytest.mark.parametrize(
    "fusion",
    [
        '{"method": "rrf", "learned": false}',
        '{"alpha": 0.5, "learned": false}',
        '{"alpha": 0.5, "normalization": "z_score"}',
        '{"learned": true, "normalization": "l2"}',
    ],
)
def test_what_goes_together(fusion: str) -> None:
    assert parse(f'{{"query": "x", "fusion": {fusion}}}')


def test_queries_and_filters_are_composed() -> None:
    request = parse('{"query": "cafe\u0301", "filter": {"source_id": ["e\u0301te\u0301"]}}')
    assert request.query == "caf\u00e9"
    assert request.filter.source_id == ["\u00e9t\u00e9"]
    # what an older Braid stored as macOS sent it is found, too
    assert clauses(Scope("t"), request.filter.passage_filter())[1] == {
        "terms": {"source_id": ["e\u0301te\u0301", "\u00e9t\u00e9"]}
    }
