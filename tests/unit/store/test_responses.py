from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from app.errors import StoreError
from app.passage import Candidate
from app.querytext import read_query
from app.store.responses import Outcome, Total, read_leg, read_lexical, read_outcome, read_response, read_tokens


def envelope(hits: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "took": 4,
        "timed_out": False,
        "_shards": {"total": 3, "failed": 1},
        "hits": {"hits": hits, "total": {"value": 9}},
        **more,
    }


def response(*scores: float | None) -> dict[str, Any]:
    hits = [
        {"_id": str(n), "_score": score, "_source": {"document_id": "d", "text": "t"}} for n, score in enumerate(scores)
    ]
    return envelope(hits)


def test_reads_hits_totals_and_partial_failures() -> None:
    found = read_response(response(2.5, 1.0))
    assert [hit.score for hit in found.hits] == [2.5, 1.0]
    assert (found.total, found.outcome) == (
        Total(9, "gte"),
        Outcome(took_ms=4, timed_out=False, shards=3, failed_shards=1),
    )
    assert (found.vectors, found.highlights) == ({}, {})


def test_a_filter_has_no_scores() -> None:
    assert [hit.score for hit in read_response(response(None, 0.0)).hits] == [0.0, 0.0]


def test_every_field_of_a_passage_is_read() -> None:
    source = {
        "document_id": "d",
        "title": "T",
        "section_heading": "H",
        "text": "t",
        "source_id": "wiki",
        "source_type": "pdf",
        "uri": "file:d",
        "page": 3,
        "position": 7,
        "timestamp": "2024-05-06T00:00:00Z",
        "topic_tags": ["a", "b"],
        "content_hash": "v1",
        "embedding": [0.5, -0.5],
    }
    raw = {"_id": "p", "_score": 1.5, "_source": source, "highlight": {"text": ["a <mark>t</mark>"]}}
    found = read_response(envelope([raw]))
    (hit,) = found.hits
    shown = {name: getattr(hit, name) for name in source if name != "embedding"}
    assert shown == {**{name: value for name, value in source.items() if name != "embedding"}, "topic_tags": ("a", "b")}
    assert (hit.id, hit.score) == ("p", 1.5)
    assert found.highlights == {"p": {"text": ("a <mark>t</mark>",)}}
    assert (found.vectors["p"].dtype, found.vectors["p"].tolist()) == (np.float32, [0.5, -0.5])


@pytest.mark.parametrize("delimiter", [-9549511920.4881596645, -4422440593.9791198149])
def test_delimiter_scores_are_an_error(delimiter: float) -> None:
    with pytest.raises(StoreError, match="braid templates apply"):
        read_response(response(0.9, delimiter))


def test_how_a_request_went() -> None:
    assert read_outcome({"took": 7, "timed_out": True, "_shards": {"total": 2, "failed": 2}}) == Outcome(7, True, 2, 2)
    assert read_outcome({}) == Outcome(0, False, 1, 0)


def ranked(name: str, score: float) -> dict[str, Any]:
    return {"_id": name, "_score": score, "fields": named(name)}


def named(name: str) -> dict[str, list[str]]:
    return {"passage_id": [name], "document_id": [f"document of {name}"]}


def candidate(name: str, score: float) -> Candidate:
    return Candidate(name, f"document of {name}", score)


def test_a_leg() -> None:
    found = read_leg(envelope([ranked("a", 2.5), ranked("b", 1.0)]), 100)
    assert found.candidates == (candidate("a", 2.5), candidate("b", 1.0))
    assert (found.total, found.outcome) == (Total(9, "gte"), Outcome(4, False, 3, 1))
    assert (found.exact, found.missing) == ({}, ())


def test_equal_scores_are_ordered_and_then_cut() -> None:
    hits = [ranked("d", 2.5), ranked("c", 1.0), ranked("a", 1.0), ranked("b", 1.0)]
    found = read_leg(envelope(hits), 3).candidates
    assert found == (candidate("d", 2.5), candidate("a", 1.0), candidate("b", 1.0))


def test_identifiers_and_words_of_the_lexical_leg() -> None:
    def answer(count: int, **scores: float) -> dict[str, Any]:
        hits = {"hits": [ranked(*item) for item in scores.items()], "total": {"value": count, "relation": "eq"}}
        return {"took": 9, "timed_out": False, "_shards": {"total": 3, "failed": 0}, "hits": hits}

    codes = [answer(3, b=1.0, y=0.2, x=0.2), answer(21, c=0.9), answer(0)]
    words = [answer(1), answer(0), {**answer(0), "timed_out": True}]
    found = read_lexical(
        [answer(2, a=2.5, b=1.0), *codes, *words], read_query("ERR-4711 IL-6 v1"), ("here", "gone", "lost"), 100
    )
    assert found.exact == {"err-4711": (3, ("b", "x", "y")), "il-6": (21, ("c",)), "v1": (0, ())}
    assert found.missing == ("gone", "lost")
    assert (found.total, found.outcome) == (Total(2), Outcome(9, True, 3, 0))
    # few passages hold ERR-4711: those that rank below the candidates are added; IL-6 is everywhere and adds nothing
    assert found.candidates == tuple(candidate(*item) for item in [("a", 2.5), ("b", 1.0), ("x", 0.2), ("y", 0.2)])


def test_a_passage_without_its_id_is_an_error() -> None:
    raw = ranked("a", 2.5)
    del raw["fields"]["passage_id"]
    with pytest.raises(StoreError, match="braid-passages-write"):
        read_leg(envelope([raw]), 100)
    del raw["fields"]
    with pytest.raises(StoreError, match="ingest pipeline braid-passages"):
        read_leg(envelope([raw]), 100)


def test_a_total_that_was_not_counted_is_a_lower_bound() -> None:
    assert read_leg({"hits": {"hits": [ranked("a", 1.0)]}}, 100).total == Total(1, "gte")


@pytest.mark.parametrize("packed", [b"", b"a", b"ab", b"abc", b"abcd"])
def test_token_vectors_come_as_base64_without_padding(packed: bytes) -> None:
    text = base64.b64encode(packed).decode().rstrip("=")
    with_vectors = {"fields": {"passage_id": ["a"], "token_vectors": [text]}}
    assert read_tokens({"hits": {"hits": [with_vectors, {"fields": {"passage_id": ["b"]}}]}}) == {"a": packed}
