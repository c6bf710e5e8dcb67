from __future__ import annotations

from typing import Any

import pytest

from app.errors import StoreError
from app.store.filters import PassageFilter, Scope, clauses
from app.store.neighbours import Place, passages_at, places_body

FILTERS = clauses(Scope("acme", frozenset({"hr"})), PassageFilter(source_id=("wiki",)))
PLACES = [Place("d2", "w", 0), Place("d1", "v", 4), Place("d1", "v", 2), Place("d1", "v", 4)]


def test_golden() -> None:
    assert places_body(PLACES, FILTERS, timeout_ms=250) == {
        "query": {
            "bool": {
                "filter": [
                    {"term": {"tenant": "acme"}},
                    *clauses(Scope("acme", frozenset({"hr"})))[1:],
                    {"terms": {"source_id": ["wiki"]}},
                    {
                        "bool": {
                            "should": [
                                {
                                    "bool": {
                                        "filter": [
                                            {"term": {"document_id": "d1"}},
                                            {"term": {"content_hash": "v"}},
                                            {"terms": {"position": [2, 4]}},
                                        ]
                                    }
                                },
                                {
                                    "bool": {
                                        "filter": [
                                            {"term": {"document_id": "d2"}},
                                            {"term": {"content_hash": "w"}},
                                            {"terms": {"position": [0]}},
                                        ]
                                    }
                                },
                            ],
                            "minimum_should_match": 1,
                        }
                    },
                ]
            }
        },
        "size": 3,
        "_source": ["document_id", "title", "section_heading", "text", "page", "position", "content_hash"],
        "track_total_hits": False,
        "timeout": "250ms",
    }


class Answering:
    """A cluster with one answer."""

    read_alias = "passages"

    def __init__(self, *sources: dict[str, Any], failed: int = 0, timed_out: bool = False) -> None:
        self.requests: list[tuple[str, str, float | None]] = []
        self.answer = {
            "took": 1,
            "timed_out": timed_out,
            "_shards": {"total": 2, "failed": failed},
            "hits": {
                "hits": [{"_id": str(n), "_score": 0.0, "_source": source} for n, source in enumerate(sources)],
            },
        }

    def request(
        self, method: str, path: str, *, params: dict[str, Any] | None, body: Any, timeout_s: float | None
    ) -> Any:
        self.requests.append((method, path, timeout_s))
        return self.answer


def source(document_id: str, content_hash: str, position: int) -> dict[str, Any]:
    return {"document_id": document_id, "content_hash": content_hash, "position": position, "text": "x", "page": 3}


def test_passages_by_their_places() -> None:
    cluster = Answering(source("d1", "v", 2), source("d1", "v", 3), source("d2", "w", 0))
    found = passages_at(cluster, PLACES, FILTERS, timeout_s=0.5)
    assert {place: (hit.id, hit.page) for place, hit in found.items()} == {
        Place("d1", "v", 2): ("0", 3),
        Place("d2", "w", 0): ("2", 3),
    }
    assert cluster.requests == [("POST", "/passages/_search", 0.5)]


def test_nothing_is_asked_for_no_places() -> None:
    cluster = Answering()
    assert passages_at(cluster, [], FILTERS, timeout_s=0.5) == {}
    assert cluster.requests == []


@pytest.mark.parametrize("cluster", [Answering(failed=1), Answering(timed_out=True)])
def test_half_an_answer_is_none(cluster: Answering) -> None:
    with pytest.raises(StoreError):
        passages_at(cluster, PLACES, FILTERS, timeout_s=0.5)
