"""What a search shows by the documents' heads. A node can't be stopped between two requests: its answers are canned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from app.config import load_settings
from app.deadline import Deadline
from app.errors import StoreNotReady, StoreUnavailable
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.service import SearchResult, SearchService
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.head_check import HeadCheck
from app.store.heads import head_key
from tests.unit.searches import ACCENTS, answer_searches, checked_word

ALICE = Scope("default", frozenset({"alice"}))
OPERATOR = Scope("default")
NATIVE: dict[str, Any] = {"mode": "hybrid", "fusion": {"learned": False}}


class Store:
    """Passages as searches see them (in their rank) and heads as they are: passages are ``document/token/position``."""

    read_alias, heads_index = "braid-passages", "braid-heads"

    def __init__(self) -> None:
        self.ranked: list[str] = []
        self.heads: dict[str, dict[str, Any]] = {}
        self.fetched: Callable[[list[str]], list[str]] = lambda ids: ids
        self.sent: list[tuple[str, Any, Any]] = []
        self.reads: Callable[[], None] = lambda: None
        """Called before each search."""
        self._lock = threading.Lock()

    def head(self, document: str, token: str | None, *, twin: str = "", acl: str = "public", **state: Any) -> None:
        state |= {"rev": 1, "access": {"acl": [acl]}, "twin": twin}
        if token is not None:
            state["version"] = [token, 3, "braid-passages-000001"]
        source = {"tenant": "default", "document_id": document, "state": state}
        self.heads[head_key("default", document, twin)] = source

    def request(self, method: str, path: str, *, params: Any = None, body: Any, timeout_s: float | None) -> Any:
        assert timeout_s is not None
        with self._lock:
            self.sent.append((path.rpartition("/")[2], params, body))
        if path == "/braid-heads/_mget":
            return {"docs": [self._item(key) for key in body["ids"]]}
        return answer_searches(path, body, self._search)

    def _search(self, body: Any) -> Any:
        shape = body["query"].get("bool", {})
        if (word := checked_word(body)) is not None and word.startswith(ACCENTS):
            hits = []
        elif word is not None:
            hits = [self._candidate(0, name) for name in self.ranked[:1]]
        elif "hybrid" in body["query"]:
            hits = [self._passage(name) for name in self.ranked[: body["size"]]]
        elif "must" in shape:
            self.reads()
            hits = [self._candidate(n, name) for n, name in enumerate(self.ranked)][: body["size"]]
        else:
            wanted = shape["filter"][0]["ids"]["values"]
            hits = [self._passage(name) for name in self.fetched(list(wanted))]
        shards = {"total": 1, "failed": 0}
        return {"took": 1, "timed_out": False, "_shards": shards, "hits": {"hits": hits, "total": {"value": len(hits)}}}

    def count(self, kind: str) -> int:
        return sum(name == kind for name, _, _ in self.sent)

    @property
    def searches(self) -> list[Any]:
        """The parameters of each search, less those that read a page."""
        sent = [(params, orjson.loads(body.splitlines()[1])) for name, params, body in self.sent if name == "_msearch"]
        sent += [(params, body) for name, params, body in self.sent if name == "_search"]
        bodies = [(params, body["query"].get("bool", {})) for params, body in sent]
        return [params for params, query in bodies if "must" in query]

    def _item(self, key: str) -> dict[str, Any]:
        if key not in self.heads:
            return {"_index": "braid-heads", "_id": key, "found": False}
        return {"_id": key, "found": True, "_seq_no": 4, "_primary_term": 1, "_source": self.heads[key]}

    @staticmethod
    def _candidate(n: int, name: str) -> dict[str, Any]:
        fields = {"passage_id": [name], "document_id": [name.split("/", 1)[0]]}
        return {"_id": name, "_score": 9.0 - n / 10, "fields": fields}

    @staticmethod
    def _passage(name: str) -> dict[str, Any]:
        document, token, position = name.split("/")
        source = {"document_id": document, "content_hash": token, "position": int(position), "text": f"text of {name}"}
        return {"_id": name, "_score": 0.0, "_source": source}


class CannedEncoder:
    name = "all-MiniLM-L6-v2"

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_query(self, text: str) -> npt.NDArray[np.float32]:
        return np.ones(4, dtype=np.float32)


class Case:
    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store = Store()
        self.state = StoreState((), shards=1, native_rrf_across_shards=False)
        gate = ReadinessGate(lambda: self.state, executor)
        heads = HeadCheck(cast(Cluster, self.store))
        settings = load_settings(hybrid_way="native")
        self._service = SearchService(settings, self.store, CannedEncoder(), gate, executor, heads=heads)

    def search(self, scope: Scope = ALICE, **fields: Any) -> SearchResult:
        request = SearchRequest.model_validate({"query": "valve", "mode": "lexical", **fields})
        return self._service.search(request, scope)

    def shown(self, scope: Scope = ALICE, **fields: Any) -> list[str]:
        return [hit.id for hit in self.search(scope, **fields).hits]


@pytest.fixture
def case() -> Iterator[Case]:
    with ThreadPoolExecutor(4) as executor:
        yield Case(executor)


def said(found: SearchResult) -> list[tuple[str, str]]:
    return [(item.stage, item.reason.split(":")[0]) for item in found.degraded]


def test_a_passage_is_shown_if_its_version_is_in_force_and_the_caller_may_read_it(case: Case) -> None:
    case.store.ranked = ["none/v1/0", "old/v1/0", "dead/v1/0", "closed/v1/0", "good/v1/0", "good/v1/1"]
    case.store.head("old", "v2")
    case.store.head("dead", None)
    case.store.head("closed", "v1", acl="bob")
    case.store.head("good", "v1", acl="alice")
    assert case.shown() == ["good/v1/0", "good/v1/1"]
    assert case.shown(OPERATOR) == ["closed/v1/0", "good/v1/0", "good/v1/1"]
    found = case.search()
    assert (found.checked, found.versions) == (True, [("good", "v1")])
    assert found.timings["heads_ms"] > 0


def test_the_heads_of_a_page_are_one_request(case: Case) -> None:
    case.store.ranked = [f"d{n}/v1/{part}" for n in range(5) for part in range(2)]
    for n in range(5):
        case.store.head(f"d{n}", "v1")
    assert len(case.shown()) == 10
    assert case.store.count("_mget") == 1
    assert len(case.store.searches) == 1


def test_an_index_of_an_older_braid_is_shown_as_it_is(case: Case) -> None:
    case.store.ranked = ["none/v1/0"]
    case.state = StoreState((), 1, False, read_only="the index is of Braid 1")
    assert (case.shown(), case.store.count("_mget"), case.search().checked) == (["none/v1/0"], 0, False)


@pytest.mark.parametrize("closed", ["other_vectors", "other_languages"])
def test_an_index_that_is_not_written_for_another_reason_is_checked(case: Case, closed: str) -> None:
    case.store.ranked = ["none/v1/0", "good/v1/0"]
    case.store.head("good", "v1")
    case.state = StoreState((), 1, False, **{closed: "it is not written"})
    assert (case.shown(), case.search().checked) == (["good/v1/0"], True)


@pytest.mark.parametrize("shaping", [{}, {"highlight": True}, {"max_per_document": 3}, {"fold_duplicates": True}])
def test_gaps_are_filled_from_the_next_candidates(case: Case, shaping: dict[str, Any]) -> None:
    documents = [f"d{n:02}" for n in range(40)]
    case.store.ranked = [f"{name}/v1/0" for name in documents]
    for n, name in enumerate(documents):
        case.store.head(name, None if n % 3 == 0 or n < 12 else "v1")
    alive = [f"{name}/v1/0" for n, name in enumerate(documents) if not (n % 3 == 0 or n < 12)]
    assert case.shown(size=5, **shaping) == alive[:5]
    pages = [case.shown(size=5, **{"from": start}, **shaping) for start in range(0, 25, 5)]
    assert sum(pages, []) == alive  # noqa: RUF017 - a few
    assert len(case.store.searches) == 6  # nothing that is dead or closed is looked for again


def test_a_twin_gives_way_where_the_document_can_be_read(case: Case) -> None:
    case.store.ranked = ["doc/v7~1-ab~t1/0", "doc/v1/0", "doc/v8~1-cd~t2/0", "doc/v7~1-ab~t1/1"]
    case.store.head("doc", "v1", acl="bob", twins=["t1", "t2"])
    case.store.head("doc", "v7~1-ab~t1", twin="t1", acl="alice")
    case.store.head("doc", "v8~1-cd~t2", twin="t2", acl="carol")
    assert case.shown() == ["doc/v7~1-ab~t1/0", "doc/v7~1-ab~t1/1"]
    assert case.shown(OPERATOR) == ["doc/v1/0"]
    assert case.shown(Scope("default", frozenset({"alice", "carol"}))) == ["doc/v7~1-ab~t1/0", "doc/v7~1-ab~t1/1"]
    case.store.head("doc", "v1", twins=["t1", "t2"])
    assert case.shown() == ["doc/v1/0"]
    case.store.head("doc", None, twins=["t1", "t2"])
    assert case.shown(OPERATOR) == ["doc/v7~1-ab~t1/0", "doc/v7~1-ab~t1/1"]  # never two versions in one answer
    assert len(case.store.searches) == 5


def test_a_document_that_was_replaced_meanwhile_is_searched_again_on_the_primaries(case: Case) -> None:
    case.store.ranked = ["doc/v1/0", "other/v1/0"]
    case.store.head("other", "v1")
    case.store.head("doc", "v2")
    case.store.reads = lambda: case.store.ranked.append("doc/v2/0") if case.store.searches[1:] else None
    found = case.search()
    assert ([hit.id for hit in found.hits], said(found)) == (["other/v1/0", "doc/v2/0"], [])
    assert case.store.searches == [None, {"preference": "_primary"}]


def test_a_version_that_was_in_force_before_the_search_and_did_not_rank_is_not_looked_for_again(case: Case) -> None:
    case.store.ranked = ["doc/v1/0"]
    case.store.head("doc", "v2")
    found = case.search()
    assert (found.hits, said(found), len(case.store.searches)) == ((), [], 2)


def test_a_document_that_keeps_being_replaced_is_stated(case: Case) -> None:
    case.store.ranked = ["doc/v0/0"]
    case.store.reads = lambda: case.store.head("doc", f"v{len(case.store.searches)}")
    found = case.search()
    assert (found.hits, said(found), len(case.store.searches)) == ((), [("fetch", "changing")], 3)


def test_an_attempt_that_is_not_in_force_yet_takes_no_second_search(case: Case) -> None:
    case.store.ranked = ["doc/v2/0", "doc/v1/0", "new/v1/0"]
    case.store.head("doc", "v1", pending=[["v2", 1, "braid-passages-000001"]])
    case.store.head("new", None, pending=[["v1", 1, "braid-passages-000001"]])
    assert case.shown() == ["doc/v1/0"]
    case.store.ranked = ["doc/v2/0"]
    assert case.shown() == []
    assert len(case.store.searches) == 2


@pytest.mark.parametrize(("token", "acl", "again"), [("v2", "public", 1), (None, "public", 0), ("v2", "bob", 0)])
def test_passages_that_vanish_are_looked_for_again_only_where_there_may_be_others(
    case: Case, token: str | None, acl: str, again: int
) -> None:
    case.store.ranked = ["doc/v1/0"]
    case.store.fetched = lambda ids: [name for name in ids if "v1" not in name]
    case.store.head("doc", token, acl=acl)
    case.store.reads = lambda: case.store.ranked.append("doc/v2/0") if case.store.searches[1:] else None
    assert (case.shown(), len(case.store.searches)) == (["doc/v2/0"] * again, 1 + again)


def test_heads_that_can_t_be_read_are_an_error_never_an_unchecked_page(case: Case) -> None:
    case.store.ranked = ["doc/v1/0"]
    missing = {"error": {"type": "index_not_found_exception"}}
    case.store.__dict__["_item"] = lambda key: missing
    with pytest.raises(StoreNotReady, match="braid-heads is missing"):
        case.search()
    missing["error"]["type"] = "no_shard_available_action_exception"
    with pytest.raises(StoreUnavailable):
        case.search()


def test_versions_in_force_are_told_from_others(case: Case) -> None:
    case.store.head("doc", "v1", acl="bob", twins=["t1"])
    case.store.head("doc", "v7~1-ab~t1", twin="t1", acl="alice")
    case.store.head("other", "v2")
    heads = HeadCheck(cast(Cluster, case.store))
    wanted = [("doc", "v7~1-ab~t1"), ("doc", "v1"), ("other", "v1"), ("other", "v2"), ("none", "v1")]
    assert heads.in_force(ALICE, wanted, 1.0) == {("doc", "v7~1-ab~t1"), ("other", "v2")}
    assert case.store.count("_mget") == 1
    assert heads.in_force(ALICE, [], 1.0) == set()
    assert case.store.count("_mget") == 1


def test_the_native_way_is_asked_for_more_where_some_may_not_be_shown(case: Case) -> None:
    case.store.ranked = [f"d{n}/v1/0" for n in range(9)]
    for n in range(9):
        case.store.head(f"d{n}", "v1" if n % 2 else None)
    assert case.search(**NATIVE, size=2).plan.way == "native"
    assert case.shown(**NATIVE, size=2) == ["d1/v1/0", "d3/v1/0"]
    assert case.shown(**NATIVE, size=2, **{"from": 2}) == ["d5/v1/0", "d7/v1/0"]
    sizes = [body["size"] for _, _, body in case.store.sent if body.get("query", {}).keys() == {"hybrid"}]
    assert sizes == [2, 100, 2, 100, 4, 100]


def test_heads_that_do_not_come_are_an_error_long_before_a_long_deadline(case: Case) -> None:
    waited: list[float] = []
    asked = case.store.request

    def silent(method: str, path: str, *, timeout_s: float, **how: Any) -> Any:
        if path != "/braid-heads/_mget":
            return asked(method, path, timeout_s=timeout_s, **how)
        waited.append(timeout_s)
        raise StoreUnavailable("no answer")

    case.store.ranked = ["doc/v1/0"]
    case.store.head("doc", "v1")
    case.store.__dict__["request"] = silent
    with pytest.raises(StoreUnavailable):
        case.search(timeout_ms=120_000)
    assert waited == [5.0]
