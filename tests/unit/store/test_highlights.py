from __future__ import annotations

from app.store.highlights import highlight_body, read_highlight

GOLDEN = {
    "type": "unified",
    "encoder": "html",
    "pre_tags": ["<mark>"],
    "post_tags": ["</mark>"],
    "fragment_size": 160,
    "number_of_fragments": 3,
    "no_match_size": 0,
    "require_field_match": False,
    "max_analyzer_offset": 20_000,
    "highlight_query": {"bool": {"must": [{"match": {"content": {"query": "lamp"}}}], "should": []}},
    "fields": {"text": {}, "title": {"number_of_fragments": 0}, "section_heading": {"number_of_fragments": 0}},
}


def test_golden_without_what_is_no_word_of_the_query() -> None:
    query = {
        "bool": {
            "must": [{"match": {"content": {"query": "lamp"}}}],
            "should": [],
            "filter": [{"term": {"tenant": "acme"}}],
            "must_not": [{"term": {"source_id": "x"}}],
        }
    }
    assert highlight_body(query) == GOLDEN
    assert "filter" in query["bool"]  # the caller's own is left alone


def test_another_query_is_taken_as_it_is() -> None:
    query = {"match": {"content": "lamp"}}
    assert highlight_body(query)["highlight_query"] == query


def test_reading() -> None:
    assert read_highlight({"text": ["a <mark>b</mark>", "c"], "title": ["t"]}) == {
        "text": ("a <mark>b</mark>", "c"),
        "title": ("t",),
    }
    assert read_highlight({}) == {}
