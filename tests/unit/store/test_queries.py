"""Golden tests: the exact bodies that go to OpenSearch."""

from __future__ import annotations

from app.store import queries
from app.store.filters import PassageFilter, Scope, clauses

FILTERS = clauses(
    Scope("acme", frozenset({"hr", "user:7"})),
    PassageFilter(
        source_id=("wiki",), topic_tags=("b", "a", "a"), timestamp=(("gte", "2024-01-01"), ("lt", "2025-01-01"))
    ),
)
GOLDEN_FILTERS = [
    {"term": {"tenant": "acme"}},
    {"terms": {"acl": ["hr", "public", "user:7"]}},
    {"terms": {"source_id": ["wiki"]}},
    {"terms": {"topic_tags": ["a", "b"]}},
    {"range": {"timestamp": {"gte": "2024-01-01", "lt": "2025-01-01"}}},
]


def test_filters_scope_first() -> None:
    assert FILTERS == GOLDEN_FILTERS


def test_the_operator_sees_the_whole_tenant_and_nothing_else() -> None:
    assert clauses(Scope("acme")) == [{"term": {"tenant": "acme"}}]


def test_a_user_without_groups_sees_what_is_public() -> None:
    assert clauses(Scope("acme", frozenset())) == [{"term": {"tenant": "acme"}}, {"terms": {"acl": ["public"]}}]


def test_lexical_leg() -> None:
    assert queries.lexical_leg("find it", FILTERS) == {
        "bool": {"must": [{"match": {"content": {"query": "find it"}}}], "filter": GOLDEN_FILTERS}
    }


def test_vector_leg() -> None:
    assert queries.vector_leg((0.5, -0.5), 7, FILTERS) == {
        "knn": {"embedding": {"vector": [0.5, -0.5], "k": 7, "filter": {"bool": {"filter": GOLDEN_FILTERS}}}}
    }


def test_hybrid_has_the_same_filter_in_every_leg_and_none_around_it() -> None:
    assert queries.hybrid_query("find it", (0.5, -0.5), 7, FILTERS) == {
        "hybrid": {
            "queries": [queries.lexical_leg("find it", FILTERS), queries.vector_leg((0.5, -0.5), 7, FILTERS)],
            "pagination_depth": 7,
        }
    }


def test_search_body_never_asks_for_vectors() -> None:
    body = queries.search_body({"match_all": {}}, size=3, timeout_ms=250)
    assert body == {
        "query": {"match_all": {}},
        "size": 3,
        "timeout": "250ms",
        "track_total_hits": True,
        "_source": [
            "document_id",
            "title",
            "section_heading",
            "text",
            "source_id",
            "source_type",
            "uri",
            "page",
            "position",
            "timestamp",
            "topic_tags",
        ],
    }


def test_hits_outside_the_other_leg_are_counted() -> None:
    body = queries.search_body({"match_all": {}}, size=3, timeout_ms=250, outside=queries.lexical_leg("find it", []))
    assert body["aggs"] == {"outside": {"filter": {"bool": {"must_not": [queries.lexical_leg("find it", [])]}}}}


def test_linear_pipeline_weights_follow_the_order_of_the_legs() -> None:
    processor = queries.linear_pipeline(0.3)["phase_results_processors"][0]["normalization-processor"]
    assert processor == {
        "normalization": {"technique": "min_max"},
        "combination": {"technique": "arithmetic_mean", "parameters": {"weights": [0.7, 0.3]}},
    }


def test_rrf_pipeline() -> None:
    assert queries.rrf_pipeline(60) == {
        "phase_results_processors": [
            {"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": 60}}}
        ]
    }
