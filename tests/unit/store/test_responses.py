from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from app.errors import StoreError
from app.passage import Candidate
from app.store.responses import Outcome, read_leg, read_outcome, read_response


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
    assert (found.total, found.outcome) == (9, Outcome(took_ms=4, timed_out=False, shards=3, failed_shards=1))
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
    return {"_id": name, "_score": None, "sort": [score, name], "fields": named(name)}


def named(name: str) -> dict[str, list[str]]:
    return {"passage_id": [name], "document_id": [f"document of {name}"]}


def candidate(name: str, score: float) -> Candidate:
    return Candidate(name, f"document of {name}", score)


def test_a_leg() -> None:
    found = read_leg(envelope([ranked("a", 2.5), ranked("b", 1.0)]))
    assert found.candidates == (candidate("a", 2.5), candidate("b", 1.0))
    assert (found.total, found.outcome) == (9, Outcome(4, False, 3, 1))
    assert (found.outside, found.exact, found.missing) == (None, {}, ())


def test_the_counts_of_a_leg() -> None:
    def bucket(count: int, **scores: float) -> dict[str, Any]:
        hits = [{"_id": name, "_score": score, "fields": named(name)} for name, score in scores.items()]
        return {"doc_count": count, "exact": {"hits": {"hits": hits}}}

    aggregations = {
        "outside": {"doc_count": 4},
        "codes": {"buckets": {"err-4711": bucket(3, b=1.0, y=0.2, x=0.2), "il-6": bucket(21, c=0.9), "v1": bucket(0)}},
        "words": {"buckets": {"here": {"doc_count": 2}, "gone": {"doc_count": 0}, "lost": {"doc_count": 0}}},
    }
    found = read_leg(envelope([ranked("a", 2.5), ranked("b", 1.0)], aggregations=aggregations))
    assert found.outside == 4
    assert found.exact == {"err-4711": (3, ("b", "y", "x")), "il-6": (21, ("c",)), "v1": (0, ())}
    assert found.missing == ("gone", "lost")
    # few passages hold ERR-4711: those that rank below the candidates are added; IL-6 is everywhere and adds nothing
    assert found.candidates == tuple(candidate(*item) for item in [("a", 2.5), ("b", 1.0), ("x", 0.2), ("y", 0.2)])


def test_a_passage_without_its_id_is_an_error() -> None:
    raw = ranked("a", 2.5)
    del raw["fields"]["passage_id"]
    with pytest.raises(StoreError, match="braid-passages-write"):
        read_leg(envelope([raw]))
    del raw["fields"]
    with pytest.raises(StoreError, match="ingest pipeline braid-passages"):
        read_leg(envelope([raw]))


def test_no_hits_and_no_total() -> None:
    assert read_leg({"hits": {"hits": []}}).total == 0
    assert read_leg({"hits": {"hits": [ranked("a", 1.0)]}}).total == 1


@pytest.mark.parametrize("packed", [b"", b"a", b"ab", b"abc", b"abcd"])
def test_token_vectors_come_as_base64_without_padding(packed: bytes) -> None:
    text = base64.b64encode(packed).decode().rstrip("=")
    found = response(1.0, 0.5)
    found["hits"]["hits"][0]["fields"] = {"token_vectors": [text]}
    assert read_response(found).tokens == {"0": packed}
