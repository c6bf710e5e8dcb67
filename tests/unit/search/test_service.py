"""What a search says when a part of it fails. No cluster fails one leg on order, so its answers are canned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.config import load_settings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, EncoderError, InvalidInput, StoreNotReady, StoreUnavailable
from app.search.readiness import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.service import SearchResult, SearchService
from app.store.filters import Scope

Leg = Callable[[], dict[str, Any]]
READY = StoreState((), shards=1, native_rrf_across_shards=False)


def response(
    *ids: str, total: int | None = None, failed: int = 0, timed_out: bool = False, **more: Any
) -> dict[str, Any]:
    hits = [
        {"_id": name, "_score": 1.0 - n / 10, "_source": {"document_id": name, "text": "t"}}
        for n, name in enumerate(ids)
    ]
    return {
        "took": 3,
        "timed_out": timed_out,
        "_shards": {"total": 3, "failed": failed},
        "hits": {"hits": hits, "total": {"value": len(ids) if total is None else total}},
        **more,
    }


def down() -> dict[str, Any]:
    raise StoreUnavailable("OpenSearch can't be reached")


class CannedCluster:
    """Answers each leg as it is told; `bodies` holds what was sent."""

    def __init__(self, lexical: Leg, dense: Leg, hybrid: Leg) -> None:
        self._answers = {"bool": lexical, "knn": dense, "hybrid": hybrid}
        self.bodies: list[dict[str, Any]] = []

    def request(self, method: str, path: str, *, params: Any, body: Any, timeout_s: float | None) -> Any:
        assert (method, path) == ("POST", "/braid-passages/_search")
        self.bodies.append(body)
        return self._answers[next(iter(body["query"]))]()


class CannedEncoder:
    def __init__(self, fails: bool = False) -> None:
        self._fails = fails

    def encode_query(self, text: str) -> npt.NDArray[np.float32]:
        if self._fails:
            raise EncoderError("out of memory")
        return np.ones(4, dtype=np.float32)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


class Case:
    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self.lexical: Leg = lambda: response("a", "b", total=9)
        self.dense: Leg = lambda: response("b", "c", aggregations={"outside": {"doc_count": 1}})
        self.hybrid: Leg = lambda: response("a", "b", "c")
        self.encoder = CannedEncoder()
        self.state = READY

    def search(self, deadline: Deadline | None = None, **fields: Any) -> SearchResult:
        self.cluster = CannedCluster(self.lexical, self.dense, self.hybrid)
        gate = ReadinessGate(lambda: self.state, self._executor)
        service = SearchService(load_settings(), self.cluster, self.encoder, gate, self._executor)
        request = SearchRequest.model_validate({"query": "valve", **fields})
        return service.search(request, Scope("default"), deadline)


@pytest.fixture
def case(executor: ThreadPoolExecutor) -> Case:
    return Case(executor)


def said(found: SearchResult) -> list[tuple[str, str]]:
    return [(item.stage, item.reason.split(":")[0]) for item in found.degraded]


def test_all_well(case: Case) -> None:
    found = case.search()
    assert [hit.id for hit in found.hits] == ["a", "b", "c"]
    assert said(found) == []
    assert found.plan.way == "native"
    assert {"query_encode_ms", "hybrid_ms", "opensearch_took_ms", "total_ms"} <= found.timings.keys()


def test_two_legs_count_what_both_match_once(case: Case) -> None:
    found = case.search(explain=True)
    assert ({hit.id for hit in found.hits}, found.total) == ({"a", "b", "c"}, 10)
    outside = [body["aggs"] for body in case.cluster.bodies if "aggs" in body]
    assert len(outside) == 1


def test_an_encoder_that_fails_leaves_the_lexical_leg(case: Case) -> None:
    case.encoder = CannedEncoder(fails=True)
    found = case.search()
    assert ([hit.id for hit in found.hits], said(found)) == (["a", "b"], [("vector", "encoder-failed")])
    with pytest.raises(EncoderError):
        case.search(mode="dense")


@pytest.mark.parametrize(("leg", "ids", "stage"), [("lexical", ["b", "c"], "lexical"), ("dense", ["a", "b"], "vector")])
def test_a_leg_that_fails_leaves_the_other_and_is_named(case: Case, leg: str, ids: list[str], stage: str) -> None:
    setattr(case, leg, down)
    found = case.search(explain=True)
    assert ([hit.id for hit in found.hits], said(found)) == (ids, [(stage, "store-unavailable")])


def test_both_legs_down_is_an_error(case: Case) -> None:
    case.lexical = case.dense = case.hybrid = down
    with pytest.raises(StoreUnavailable):
        case.search(explain=True)
    with pytest.raises(StoreUnavailable):
        case.search()


def test_partial_and_late_answers_are_named(case: Case) -> None:
    case.hybrid = lambda: response("a", failed=1, timed_out=True)
    assert said(case.search()) == [("hybrid", "partial"), ("hybrid", "timeout")]


def test_several_shards_take_two_legs(case: Case) -> None:
    case.state = StoreState((), shards=3, native_rrf_across_shards=False)
    for method in ("linear", "rrf"):
        assert case.search(fusion={"method": method}).plan.way == "legs"
    case.state = StoreState((), shards=3, native_rrf_across_shards=True)
    assert case.search(fusion={"method": "rrf"}).plan.way == "native"


def test_a_cluster_that_is_not_ours_answers_nothing(case: Case) -> None:
    case.state = StoreState(("search pipeline braid-hybrid-linear is missing",), 1, False)
    with pytest.raises(StoreNotReady, match="braid-hybrid-linear"):
        case.search(mode="lexical")


def test_a_spent_budget_is_the_caller_s_timeout(case: Case) -> None:
    with pytest.raises(DeadlineExceeded, match="timeout_ms=1 "):
        case.search(deadline=Deadline(at=0.0, budget_ms=1))


def test_the_time_left_goes_down_to_opensearch(case: Case) -> None:
    case.search(timeout_ms=5000)
    (body,) = case.cluster.bodies
    assert 0 < int(body["timeout"].removesuffix("ms")) <= 5000


def test_a_page_past_the_candidates_is_refused(case: Case) -> None:
    with pytest.raises(InvalidInput, match="candidates"):
        case.search(size=90, **{"from": 20})
    assert case.search(size=90, candidates=200, **{"from": 20}).hits == ()


def test_a_rerank_that_nobody_does_is_said(case: Case) -> None:
    assert said(case.search(rerank=True)) == [("rerank", "not-configured")]


def test_a_very_long_query_is_matched_by_its_first_words(case: Case) -> None:
    found = case.search(query="w " * 2000)
    assert said(found) == [("lexical", "query-cut")]
