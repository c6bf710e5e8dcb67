"""Golden tests: the exact bodies that go to OpenSearch."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from app.querytext import MAX_TERMS, read_query
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


def test_what_is_left_out_is_one_clause_behind_the_scope() -> None:
    wanted = PassageFilter({"topic_tags": ("b", "a"), "timestamp": (("lt", "2020-01-01"),)}, source_id=("wiki",))
    assert clauses(Scope("acme"), wanted) == [
        {"term": {"tenant": "acme"}},
        {"terms": {"source_id": ["wiki"]}},
        {"bool": {"must_not": [{"terms": {"topic_tags": ["a", "b"]}}, {"range": {"timestamp": {"lt": "2020-01-01"}}}]}},
    ]
    for name in ("acl", "acl_1", "tenant", "source"):
        with pytest.raises(ValueError, match=name):
            PassageFilter({name: ("x",)})


def leg(text: str, boosts: Boosts = PLAIN, corrected: tuple[str, ...] = ()) -> queries.Body:
    return queries.lexical_leg(read_query(text), boosts, FILTERS, corrected)


def test_lexical_leg() -> None:
    plain = {"bool": {"must": [{"match": {"content": {"query": "find it"}}}], "filter": GOLDEN_FILTERS}}
    assert leg("find it") == plain
    assert queries.lexical_match(read_query("find it"), FILTERS) == plain


def test_what_only_orders_the_best() -> None:
    query = read_query("how to find the red pump")
    assert leg(query.text, Boosts()) == leg(query.text)
    refining = [
        {"match": {"title": {"query": query.text, "boost": 0.1}}},
        {"match": {"section_heading": {"query": query.text, "boost": 0.1}}},
        {"match_phrase": {"content": {"query": "find red", "slop": 3, "boost": 0.3}}},
        {"match_phrase": {"content": {"query": "red pump", "slop": 3, "boost": 0.3}}},
    ]
    assert queries.refinement(query, Boosts()) == refining
    assert queries.refinement(query, PLAIN) == []
    whole = queries.hybrid_query(query, Boosts(), (0.5, -0.5), 7, FILTERS)["hybrid"]["queries"][0]
    assert whole == {"bool": {**leg(query.text)["bool"], "should": refining}}


def test_no_query_has_more_clauses_than_opensearch_takes() -> None:
    """Each term is a clause; OpenSearch counts those of the leg and of the refinement apart, of `hybrid` together."""
    for words in (299, 300, 301, 5000):
        query = read_query(" ".join(f"w{n}" for n in range(words)))
        body = queries.hybrid_query(query, Boosts(), (0.5,), 7, FILTERS)["hybrid"]["queries"][0]
        matches = str(body).count(repr(query.text))
        assert matches * query.terms <= MAX_TERMS, words


def code(spellings: str, **boost: float) -> queries.Body:
    return {"match": {"content.codes": {"query": spellings, "analyzer": "whitespace", **boost}}}


ERR = "err-4711 err4711 err_4711 err.4711 ｅｒｒ－４７１１ ｅｒｒ４７１１ ｅｒｒ＿４７１１ ｅｒｒ．４７１１"
VERSION = "2.19.1 v2.19.1 ２．１９．１ ｖ２．１９．１"


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
                            code(ERR, boost=0.0),
                            code(VERSION, boost=0.0),
                        ],
                        "minimum_should_match": 1,
                    }
                }
            ],
            "filter": GOLDEN_FILTERS,
            "should": [
                code(ERR, boost=1.5),
                code(VERSION, boost=1.5),
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


def other_spelling(word: str) -> queries.Body:
    plain = {"match": {"content": {"query": word, "operator": "and", "zero_terms_query": "all"}}}
    folded = {"match": {"content.folded": {"query": word, "operator": "and", "boost": 0.8}}}
    return {"bool": {"must": [folded], "must_not": [plain]}}


def test_folded_words_score_where_they_stand_with_other_accents_only() -> None:
    query = dataclasses.replace(read_query("cafe menu"), folded=("cafe",))
    (must,) = queries.lexical_match(query, FILTERS)["bool"]["must"]
    assert must["bool"]["should"] == [{"match": {"content": {"query": "cafe menu"}}}, other_spelling("cafe")]
    found = queries.lexical_searches(
        query, Boosts(), FILTERS, depth=9, timeout_ms=250, checked=(), unfolded=("menu", "list")
    )
    probes = [item["query"]["bool"]["filter"][0] for item in found[1:]]
    either = {"should": [other_spelling("menu"), other_spelling("list")], "minimum_should_match": 1}
    assert probes == [other_spelling("cafe"), {"bool": either}]


def test_stop_words_alone_match_where_they_are_indexed_unless_another_word_counts() -> None:
    (must,) = queries.lexical_match(read_query("the who"), FILTERS)["bool"]["must"]
    scored = [{"match": {field: {"query": "the who"}}} for field in ("content", "content.folded")]
    decisive = {"match": {"content": {"query": "the who", "zero_terms_query": "all"}}}
    assert must == {"bool": {"must": [{"dis_max": {"queries": scored}}], "filter": [decisive]}}


def test_an_identifier_in_one_piece_is_found_in_two() -> None:
    (must,) = queries.lexical_match(read_query("ppr9087"), FILTERS)["bool"]["must"]
    spelled = must["bool"]["should"][1]["match"]["content.codes"]["query"].split()
    assert spelled[:4] == ["ppr9087", "ppr-9087", "ppr_9087", "ppr.9087"]
    assert must["bool"]["should"][2] == {"match_phrase": {"content": {"query": "ppr 9087", "slop": 0, "boost": 1.0}}}


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
        hybrid = queries.hybrid_query(read_query("find it"), boosts, (0.5, -0.5), 7, FILTERS)["hybrid"]
        lexical, dense = hybrid["queries"]
        assert {**lexical["bool"], "should": []} == {**leg("find it")["bool"], "should": []}
        assert (dense, hybrid["pagination_depth"]) == (queries.vector_leg((0.5, -0.5), 7, FILTERS), 7)


RETURNED = [
    "document_id",
    "title",
    "section_heading",
    "text",
    "source_id",
    "source_type",
    "uri",
    "topic_tags",
    "language",
    "detected_language",
    "language_confidence",
    "page",
    "pages",
    "position",
    "timestamp",
    "content_hash",
]


def test_search_body_never_asks_for_vectors() -> None:
    body = queries.search_body({"match_all": {}}, size=3, timeout_ms=250)
    assert body == {
        "query": {"match_all": {}},
        "size": 3,
        "timeout": "250ms",
        "track_total_hits": 1000,
        "_source": RETURNED,
    }
    exact = queries.search_body({"match_all": {}}, size=3, timeout_ms=250, exact_total=True)
    assert exact == {**body, "track_total_hits": True}


def test_leg_body_opens_no_document_and_lets_lucene_skip() -> None:
    """A sort, an aggregation or a count of all matches would make it visit each."""
    body = {
        "query": {"match_all": {}},
        "size": 3,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["passage_id", "document_id"],
        "track_total_hits": 1000,
        "timeout": "250ms",
    }
    assert queries.leg_body({"match_all": {}}, size=3, timeout_ms=250) == body
    counted = queries.leg_body({"match_all": {}}, size=3, timeout_ms=250, exact_total=True)
    assert counted == {**body, "track_total_hits": True}
    clause = {"match": {"title": {"query": "x"}}}
    for size in (3, 300):
        refined = queries.leg_body({"match_all": {}}, size=size, timeout_ms=250, refined_by=[clause])
        rescore = {"bool": {"filter": [{"match_all": {}}], "should": [clause]}}
        asked = {"window_size": size, "query": {"rescore_query": rescore, "score_mode": "total"}}
        assert refined == {**body, "size": size, "rescore": asked}


def searches(text: str, **words: tuple[str, ...]) -> list[queries.Body]:
    how: dict[str, Any] = {"checked": (), "depth": 100, "timeout_ms": 250, **words}
    return queries.lexical_searches(read_query(text), Boosts(), FILTERS, **how)


def test_the_lexical_leg_is_one_search_where_nothing_has_to_be_checked() -> None:
    query = read_query("red pump")
    (ranked,) = searches("red pump")
    refining = queries.refinement(query, Boosts())
    wanted = queries.leg_body(leg("red pump"), size=100 + queries.TIES, timeout_ms=250, refined_by=refining)
    assert ranked == wanted


def test_identifiers_and_unknown_words_have_searches_of_their_own() -> None:
    ranked, first, second, pump, restart = searches("pump ERR-4711 v2.19.1 restart", checked=("pump", "restart"))
    for found, spellings in ((first, ERR), (second, VERSION)):
        part = found["query"]["bool"]
        assert part == {**ranked["query"]["bool"], "filter": [*GOLDEN_FILTERS, code(spellings)]}
        assert found["size"] == queries.MOST_EXACT
        assert found["rescore"] == {**ranked["rescore"], "window_size": queries.MOST_EXACT}
    for found, word in ((pump, "pump"), (restart, "restart")):
        there = {
            "bool": {
                "should": [
                    {"match": {"content": {"query": word, "zero_terms_query": "all"}}},
                    {"match": {"content.folded": {"query": word, "operator": "and"}}},
                ],
                "minimum_should_match": 1,
            }
        }
        assert found == {
            "query": {"bool": {"filter": [there, *GOLDEN_FILTERS]}},
            "size": 0,
            "track_total_hits": 1,
        }


def test_corrected_words_are_matched_and_checked_with_typing_errors() -> None:
    ranked, found = searches("pmup restart", corrected=("pmup",))
    assert ranked["query"] == leg("pmup restart", Boosts(), ("pmup",))
    fuzzy = {"query": "pmup", "fuzziness": "AUTO", "prefix_length": 1}
    assert found["query"]["bool"]["filter"][0] == {"match": {"content": fuzzy}}


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
    assert queries.tokens_body(["p", "q"], FILTERS, timeout_ms=250) == {
        **body,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["passage_id", "token_vectors"],
    }
    assert queries.fetch_body(["p", "q"], FILTERS, timeout_ms=250) == body  # the shared list was not changed


def test_linear_pipeline_weights_follow_the_order_of_the_legs() -> None:
    processor = queries.linear_pipeline(0.3)["phase_results_processors"][0]["normalization-processor"]
    assert processor == {
        "normalization": {"technique": "min_max"},
        "combination": {"technique": "arithmetic_mean", "parameters": {"weights": [0.7, 0.3]}},
    }
