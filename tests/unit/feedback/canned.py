"""A cluster that takes what it is sent, and settings, hits and entries to send."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import orjson

from app.config import Settings, load_settings
from app.feedback.entries import entry_of, logged_results
from app.feedback.ids import new_query_id
from app.passage import Hit
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.query_log import Entry

SCOPE = Scope("default")


@cache  # they take 10 ms, and a test makes a thousand entries
def settings(mode: str = "full") -> Settings:
    return load_settings(query_log=mode, query_log_key="0123456789abcdef" if mode == "hashed" else None)


def hit(passage_id: str, document_id: str = "d", **scores: float) -> Hit:
    return Hit(
        id=passage_id,
        document_id=document_id,
        text="the text of a passage",
        title="a title",
        section_heading="",
        source_id="",
        source_type="",
        uri="",
        page=None,
        position=0,
        timestamp=None,
        topic_tags=(),
        score=scores.pop("score", 1.0),
        **scores,  # type: ignore[arg-type]
    )


def entry(mode: str = "full", **more: Any) -> Entry:
    fields: dict[str, Any] = {
        "query_id": new_query_id(),
        "scope": SCOPE,
        "query": "Where is the key?",
        "route": "search",
        "mode": "hybrid",
        "fusion": "linear",
        "alpha": 0.4,
        "total": 2,
        "total_ms": 12.5,
        "degraded": [],
        "index_generation": None,
    }
    hits, first_rank = more.pop("hits", [hit("p1", fused=0.5), hit("p2")]), more.pop("first_rank", 1)
    return entry_of(settings(mode).query_log, **{**fields, "results": logged_results(hits, first_rank), **more})


class CannedCluster(Cluster):
    """Answers ``_bulk`` as it is told, once `open` is set; `batches` holds the sources that came, batch by batch."""

    def __init__(self, answer: Callable[[int], dict[str, Any]] | None = None) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.actions: list[dict[str, Any]] = []
        self.open = threading.Event()
        self.open.set()
        self._answer = answer or (lambda _: {"status": 201})

    def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        assert (method, path) == ("POST", "/_bulk")
        assert self.open.wait(30)
        lines = [orjson.loads(line) for line in bytes(body).splitlines()]
        self.actions += lines[::2]
        self.batches.append(lines[1::2])
        return {"items": [{"create": self._answer(number)} for number in range(len(lines) // 2)]}
