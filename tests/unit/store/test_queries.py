"""Golden tests: the exact bodies that go to OpenSearch."""

from __future__ import annotations

from typing import Any

from app.querytext import read_query
from app.store import queries
from app.store.filters import PassageFilter, Scope, clauses
from app.tuning import Boosts

PLAIN = Boosts(title=0, heading=0, phrase=0, codes=0, quoted=0)

FILTERS = clauses(
    Scope("acme", frozenset({"hr", "user:7"})),
    PassageFilter(
        source_id=("wiki",), topic_tags=("b", "a", "a"), timestamp=(("gte", "2024-01-01"), ("lt", "2025-01-01"))
    ),
)


def unmet(*have: str) -> dict[str, Any]:
    """What leaves out passages with a restriction that none of these names satisfies."""
    return {
        "bool": {
            "must_not": [
                {"bool": {"filter": [{"exists": {"field": field}}], "must_not": [{"terms": {field: list(have)}}]}}
                for field in ("acl_1", "acl_2", "acl_3", "acl_4")
            ]
        }
    }


GOLDEN_FILTERS = [
    {"term": {"tenant": "acme"}},
    {"terms": {"acl": ["hr", "public", "user:7"]}},
    unmet("hr", "public", "user:7"),
    {"terms": {"source_id": ["wiki"]}},
    {"terms": {"topic_tags": ["a", "b"]}},
    {"range": {"timestamp": {"gte": "2024-01-01", "lt": "2025-01-01"}}},
]


def test_filters_scope_first() -> None:
    assert FILTERS == GOLDEN_FILTERS


def test_the_operator_sees_the_whole_tenant_and_nothing_else() -> None:
    assert clauses(Scope("acme")) == [{"term": {"tenant": "acme"}}]


def test_a_user_without_groups_sees_what_is_public() -> None:
    assert clauses(Scope("acme", frozenset())) == [
        {"term": {"tenant": "acme"}},
        {"terms": {"acl": ["public"]}},
        unmet("public"),
    ]


def test_pages_and_languages_are_rows_like_the_others() -> None:
    wanted = PassageFilter(language=("zh-hant", "de"), pages=(7, 3, 7))
    assert clauses(Scope("acme"), wanted)[1:] == [
        {"terms": {"language": ["de", "zh-hant"]}},
        {"terms": {"pages": [3, 7]}},
    ]


def leg(text: str, boosts: Boosts = PLAIN, corrected: tuple[str, ...] = ()) -> queries.Body:
    return queries.lexical_leg(read_query(text), boosts, FILTERS, corrected)


def test_lexical_leg() -> None:
    plain = {"bool": {"must": [{"match": {"content": {"query": "find it"}}}], "filter": GOLDEN_FILTERS}}
    assert leg("find it") == plain
    assert queries.lexical_match(read_query("find it"), FILTERS) == plain


def test_lexical_leg_with_boosts() -> None:
    assert leg("how to find the red pump", Boosts()) == {
        "bool": {
            "must": [{"match": {"content": {"query": "how to find the red pump"}}}],
            "filter": GOLDEN_FILTERS,
            "should": [
                {"match": {"title": {"query": "how to find the red pump", "boost": 0.1}}},
                {"match": {"section_heading": {"query": "how to find the red pump", "boost": 0.1}}},
                {"match_phrase": {"content": {"query": "find red", "slop": 3, "boost": 0.3}}},
                {"match_phrase": {"content": {"query": "red pump", "slop": 3, "boost": 0.3}}},
            ],
        }
    }


def code(spellings: str, **boost: float) -> queries.Body:
    return {"match": {"content.codes": {"query": spellings, "analyzer": "whitespace", **boost}}}


def test_lexical_leg_with_identifiers_and_a_phrase() -> None:
    text = 'ERR-4711 in v2.19.1 "upload queue"'
    boosts = PLAIN.model_copy(update={"codes": 1.5, "quoted": 3.0})
    assert leg(text, boosts) == {
        "bool": {
            "must": [
                {
                    "bool": {
                        "should": [
                            {"match": {"content": {"query": text}}},
                            code("err-4711", boost=0.0),
                            code("2.19.1 v2.19.1", boost=0.0),
                        ],
                        "minimum_should_match": 1,
                    }
                }
            ],
            "filter": GOLDEN_FILTERS,
            "should": [
                code("err-4711", boost=1.5),
                code("2.19.1 v2.19.1", boost=1.5),
                {"match_phrase": {"content": {"query": "upload queue", "slop": 0, "boost": 3.0}}},
            ],
        }
    }
    assert "should" not in leg(text)["bool"]  # without boosts nothing but the match is left


def test_lexical_leg_with_corrected_words() -> None:
    fuzzy = {"query": "fnd pmp", "fuzziness": "AUTO", "prefix_length": 1, "boost": 0.6}
    wanted = {
        "must": [
            {
                "bool": {
                    "should": [
                        {"match": {"content": {"query": "fnd a pmp"}}},
                        {"match": {"content": fuzzy}},
                    ],
                    "minimum_should_match": 1,
                }
            }
        ],
        "filter": GOLDEN_FILTERS,
    }
    assert leg("fnd a pmp", corrected=("fnd", "pmp")) == {"bool": wanted}
    assert queries.lexical_match(read_query("fnd a pmp"), FILTERS, ("fnd", "pmp")) == {"bool": wanted}


def test_what_ranks_never_decides_what_matches() -> None:
    query = read_query('ERR-4711 "upload queue" pump')
    whole = queries.lexical_leg(query, Boosts(), FILTERS, ("pmup",))["bool"]
    matched = queries.lexical_match(query, FILTERS, ("pmup",))["bool"]
    assert {name: part for name, part in whole.items() if name != "should"} == matched


def test_vector_leg() -> None:
    assert queries.vector_leg((0.5, -0.5), 7, FILTERS) == {
        "knn": {"embedding": {"vector": [0.5, -0.5], "k": 7, "filter": {"bool": {"filter": GOLDEN_FILTERS}}}}
    }


def test_hybrid_has_the_same_filter_in_every_leg_and_none_around_it() -> None:
    for boosts in (PLAIN, Boosts()):
        assert queries.hybrid_query(read_query("find it"), boosts, (0.5, -0.5), 7, FILTERS) == {
            "hybrid": {
                "queries": [leg("find it", boosts), queries.vector_leg((0.5, -0.5), 7, FILTERS)],
                "pagination_depth": 7,
            }
        }


RETURNED = [
    "document_id",
    "title",
    "section_heading",
    "text",
    "source_id",
    "source_type",
    "uri",
    "page",
    "pages",
    "position",
    "timestamp",
    "topic_tags",
    "language",
    "content_hash",
]


def test_search_body_never_asks_for_vectors() -> None:
    body = queries.search_body({"match_all": {}}, size=3, timeout_ms=250)
    assert body == {
        "query": {"match_all": {}},
        "size": 3,
        "timeout": "250ms",
        "track_total_hits": True,
        "_source": RETURNED,
    }


def test_leg_body_opens_no_document_and_breaks_ties_by_id() -> None:
    body = {
        "query": {"match_all": {}},
        "size": 3,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["passage_id", "document_id"],
        "sort": [{"_score": "desc"}, {"passage_id": "asc"}],
        "track_total_hits": True,
        "timeout": "250ms",
    }
    assert queries.leg_body({"match_all": {}}, size=3, timeout_ms=250) == body
    assert queries.leg_body({"match_all": {}}, size=3, timeout_ms=250, counts={}) == body
    counts = queries.outside_count({"match_all": {}})
    assert queries.leg_body({"match_all": {}}, size=3, timeout_ms=250, counts=counts) == {**body, "aggs": counts}


def test_hits_outside_the_other_leg_are_counted() -> None:
    assert queries.outside_count(leg("find it")) == {
        "outside": {"filter": {"bool": {"must_not": [leg("find it")]}}},
    }


EXACT = {
    "filters": {"filters": {"err-4711": code("err-4711"), "v2.19.1": code("2.19.1 v2.19.1")}},
    "aggs": {"exact": {"top_hits": {"size": 20, "_source": False, "docvalue_fields": ["passage_id", "document_id"]}}},
}


def test_identifiers_and_unknown_words_are_counted() -> None:
    assert queries.lexical_counts(read_query("a of"), ()) == {}
    assert queries.lexical_counts(read_query("pump ERR-4711 v2.19.1 restart"), ("pump", "restart")) == {
        "codes": EXACT,
        "words": {
            "filters": {
                "filters": {
                    "pump": {"match": {"content": {"query": "pump", "zero_terms_query": "all"}}},
                    "restart": {"match": {"content": {"query": "restart", "zero_terms_query": "all"}}},
                }
            }
        },
    }


def test_what_is_found_with_typing_errors_is_counted() -> None:
    fuzzy = {"query": "pmup", "fuzziness": "AUTO", "prefix_length": 1}
    words = {"filters": {"filters": {"pmup": {"match": {"content": fuzzy}}}}}
    assert queries.corrected_counts(read_query("pmup restart"), ["pmup"]) == {"words": words}
    found = queries.corrected_counts(read_query("pmup ERR-4711 v2.19.1"), ["pmup"])
    assert found == {"codes": EXACT, "words": words}


def test_fetch_body() -> None:
    body = {
        "query": {"bool": {"filter": [{"ids": {"values": ["p", "q"]}}, *GOLDEN_FILTERS]}},
        "size": 2,
        "timeout": "250ms",
        "track_total_hits": False,
        "_source": RETURNED,
    }
    assert queries.fetch_body(["p", "q"], FILTERS, timeout_ms=250) == body
    marks = {"fields": {"text": {}}}
    assert queries.fetch_body(["p", "q"], FILTERS, timeout_ms=250, vectors=True, highlight=marks) == {
        **body,
        "_source": [*RETURNED, "embedding"],
        "highlight": marks,
    }
    tokens = queries.fetch_body(["p", "q"], FILTERS, timeout_ms=250, tokens=True)
    assert tokens == {**body, "docvalue_fields": ["token_vectors"]}
    assert queries.fetch_body(["p", "q"], FILTERS, timeout_ms=250) == body  # the shared list was not changed


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
