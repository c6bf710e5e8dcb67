"""``POST /v1/search``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from flask import Blueprint, Response
from flask import request as http_request

from app.api import schemas
from app.api.bodies import read_json, scope, services, write_body
from app.api.shown_scores import ShownScores
from app.deadline import Deadline
from app.features import Features
from app.feedback.entries import Route, entry_of, logged_results
from app.feedback.ids import new_query_id
from app.gateway.audit import note
from app.passage import Hit
from app.search.request import SearchRequest
from app.search.service import SearchResult
from app.serving.answers import Look, is_lasting, record_of

blueprint = Blueprint("search", __name__)


@blueprint.post("/v1/search")
def search() -> Response:
    """Passages that match a query, best first."""
    request = read_json(SearchRequest)
    asked = Asked.now(request)
    look = asked.look("search")
    record, timings = look.record, asked.timings
    try:
        if record is None:
            with asked.turn() as deadline:
                found = asked.search(look, deadline)
            body = schemas.SearchResponse(**search_fields(request, found)).model_dump(mode="json")
            record, timings = record_of(look, body, log=logged(request, found)), found.timings
            if is_lasting([item.reason for item in found.degraded]):
                look.finish(record)
    finally:
        look.finish(None)
    body = record["answer"] | asked.volatile(look, timings)
    log_query(request, body, record["log"], route="search")
    return write_body(body)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a search or an answer: its budget, which began when it came, and the flags that it goes by."""

    request: SearchRequest
    started: float
    deadline: Deadline
    features: Features

    @classmethod
    def now(cls, request: SearchRequest) -> Asked:
        # our worker notes when the request was there: the time until a thread had it counts
        arrived = getattr(http_request.environ.get("gunicorn.socket"), "arrived", None)
        deadline = Deadline.after(request.timeout_ms or services().settings.timeout_ms, arrived)
        return cls(request, time.perf_counter(), deadline, services().features(scope()))

    @property
    def timings(self) -> dict[str, float]:
        """Of an answer that was there already."""
        return {"total_ms": round((time.perf_counter() - self.started) * 1000, 3)}

    def look(self, route: Route) -> Look:
        """Whether the answer is there already; finish it in any case."""
        return services().answers.look(route, self.request, scope(), self.features, self.deadline)

    @contextmanager
    def turn(self, share: float = 1.0) -> Iterator[Deadline]:
        """Wait for this request's turn, and have it while the block runs; gives the deadline of a share of the time.

        Raises:
            Overloaded, DeadlineExceeded.
        """
        deadline = self.deadline.part(share)
        with services().admission.enter(deadline):
            yield deadline

    def search(self, look: Look, deadline: Deadline) -> SearchResult:
        """Search, by whoever has its turn. Raises as `SearchService.search`."""
        return services().search.search(self.request, look.scope, deadline, self.features)

    def volatile(self, look: Look, timings: Mapping[str, float]) -> dict[str, Any]:
        """The fields of an answer that are this request's own, wherever the rest came from."""
        return {
            "query_id": new_query_id(),
            "timings": dict(timings),
            "cache": look.outcome,
            "cache_stale_ms": look.stale_ms,
            "index_generation": look.generation,
            "variants": dict(self.features.variants),
        }


def search_fields(request: SearchRequest, found: SearchResult) -> dict[str, Any]:
    """The fields of a SearchResponse that may be cached, and places for the others; an answer has them too."""
    shown = ShownScores.to(scope(), found)
    return {
        "query_id": "",
        "results": [
            result_item(hit, found, shown, place) for place, hit in enumerate(found.hits, start=request.from_ + 1)
        ],
        "total": found.total,
        "timings": {},
        "degraded": [schemas.DegradedItem(stage=item.stage, reason=item.reason) for item in found.degraded],
        "cache": "off",
        "index_generation": None,
        "explanation": _explanation(request, found, shown) if request.explain else None,
    }


def logged(request: SearchRequest, found: SearchResult, abstained: bool | None = None) -> dict[str, Any]:
    """What the query log keeps of an answer beside its fields; cached with it."""
    return {
        "fusion": request.fusion.method if found.plan.way in {"native", "legs"} else None,
        "alpha": found.weight.alpha if found.weight is not None else None,
        "results": logged_results(found.hits, request.from_ + 1),
        "abstained": abstained,
    }


def log_query(request: SearchRequest, body: Mapping[str, Any], kept: Mapping[str, Any], *, route: Route) -> None:
    """Hand what was asked and shown to the query log; costs the request no waiting.

    `body` is the answer as the caller gets it, `kept` is of `logged`.
    """
    note(query_id=body["query_id"], results=len(body["results"]), cache=body["cache"])
    log = services().query_log
    if not log.enabled:
        return
    log.record(
        entry_of(
            services().settings,
            query_id=body["query_id"],
            scope=scope(),
            query=request.query,
            route=route,
            mode=request.mode,
            total=body["total"],
            total_ms=body["timings"]["total_ms"],
            degraded=[item["stage"] for item in body["degraded"]],
            index_generation=body["index_generation"],
            **kept,
        )
    )


def result_item(hit: Hit, found: SearchResult, shown: ShownScores, place: int) -> schemas.ResultItem:
    """One hit as the API shows it; `place` is its own, from 1."""
    highlights = found.highlights.get(hit.id)
    return schemas.ResultItem(
        id=hit.id,
        document_id=hit.document_id,
        title=hit.title,
        section_heading=hit.section_heading,
        text=hit.text,
        source_id=hit.source_id,
        source_type=hit.source_type,
        uri=hit.uri,
        page=hit.page,
        timestamp=hit.timestamp,
        topic_tags=list(hit.topic_tags),
        score=shown.score(hit, place),
        scores=shown.stages(hit),
        duplicates=list(found.folded.get(hit.id, ())),
        highlights={name: list(parts) for name, parts in highlights.items()} if highlights is not None else None,
    )


def _explanation(request: SearchRequest, found: SearchResult, shown: ShownScores) -> dict[str, Any]:
    """How the order came about, in names that docs/http.md explains."""
    explained: dict[str, Any] = {
        "way": found.plan.way,
        "reason": found.plan.reason,
        "candidates": found.depth,
        "tuning": found.tuning.version,
        "boosts": found.tuning.boosts.model_dump(),
        "exact": list(found.exact),
        "corrected": list(found.corrected),
    }
    if found.rerank is not None:
        explained["rerank"] = asdict(found.rerank)
    if request.mode != "hybrid":
        return explained
    fused: dict[str, Any] = {"method": request.fusion.method}
    if request.fusion.method == "rrf":
        fused["rank_constant"] = services().settings.rrf_rank_constant
    elif found.weight is not None:
        fused |= {
            **shown.weight(found.weight),
            "normalization": request.fusion.normalization or found.tuning.normalization,
            "combination": "arithmetic_mean",
        }
    return explained | {"fusion": fused}
