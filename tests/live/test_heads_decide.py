"""A passage is shown only if its document's head names its version and lets the caller read: on the real node."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from app.access import Access
from app.api.factory import create_app
from app.api.services import Services
from app.deadline import Deadline
from app.embedding.encoder import load_encoder
from app.features import ALL_ON
from app.search.request import SearchRequest
from app.search.service import SearchService
from app.serving.answer_cache import CacheLookup
from app.serving.reads import ReadCall
from app.store.bulk import bulk_index
from app.store.client import Cluster
from app.store.documents import read_version, refresh
from app.store.filters import Scope, clauses
from app.store.head_check import HeadCheck
from app.store.heads import Head, Version, make_token, read_heads, twin_name
from app.store.neighbours import Place, shown_at
from tests.heads import change_head
from tests.live.leak.oracle import Caller
from tests.live.leak.world import World, document_path

pytestmark = pytest.mark.live

WRITER = ("search", "ingest")
TEXT = "The marmot whistles when the eagle comes."


class Library:
    """A tenant of its own on the shared service."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cluster = world.cluster
        self.tenant = f"heads-{uuid4().hex[:12]}"
        self.staff, self.hr = (world.user(name, self.tenant, [name], WRITER) for name in ("staff", "hr"))
        self.admin = world.user("root", self.tenant, [], ("admin",))

    def send(self, caller: Caller, path: str, body: Any = None, *, method: str = "POST") -> Any:
        headers = {"Authorization": f"Bearer {caller.token}"}
        return self.world.client.open(path, method=method, json=body, headers=headers)

    def put(self, caller: Caller, document_id: str, text: str = TEXT, **fields: Any) -> None:
        answer = self.send(caller, "/v1/documents", {"document_id": document_id, "text": text, **fields})
        assert answer.status_code == 200, answer.get_data(as_text=True)

    def search(self, caller: Caller, query: str = "marmot", **fields: Any) -> dict[str, Any]:
        answer = self.send(caller, "/v1/search", {"query": query, **fields})
        assert answer.status_code == 200, answer.get_data(as_text=True)
        found: dict[str, Any] = answer.json
        return found

    def shown(self, caller: Caller, **fields: Any) -> list[str]:
        return [item["document_id"] for item in self.search(caller, cache=False, **fields)["results"]]

    def texts(self, caller: Caller) -> list[str]:
        return [item["text"] for item in self.search(caller, cache=False)["results"]]

    def head(self, document_id: str, twin: str = "") -> Head:
        return read_heads(self.cluster, [Head(self.tenant, document_id, twin)]).popitem()[1]

    def change(self, document_id: str, **changed: Any) -> Head:
        return change_head(self.cluster, document_id, tenant=self.tenant, **changed)


@pytest.fixture
def library(world: World) -> Library:
    return Library(world)


def test_passages_of_no_head_or_another_version_are_not_shown(library: Library) -> None:
    library.put(library.staff, "d")
    head = library.head("d")
    assert head.version is not None
    passages = list(read_version(library.cluster, head))
    strays = [
        {**vars_of(item), "id": uuid4().hex, "document_id": name, "content_hash": token}
        for item in passages
        for name, token in (("stray", head.version.token), ("d", make_token("other", 1, "0" * 8, "")))
    ]
    assert bulk_index(library.cluster, [type(passages[0])(**stray) for stray in strays]).indexed == 2
    refresh(library.cluster)
    found = library.search(library.staff, cache=False)
    assert ([item["document_id"] for item in found["results"]], found["total"]) == (["d"], 3)
    assert found["results"][0]["id"] == passages[0].id
    assert found["degraded"] == []
    library.change("d", version=Version("another", 1, head.version.index))
    assert library.shown(library.staff) == []
    library.change("d", version=None)
    assert library.shown(library.admin) == []


def vars_of(passage: Any) -> dict[str, Any]:
    return {name: getattr(passage, name) for name in type(passage).__dataclass_fields__}


def test_a_right_that_is_taken_in_the_head_alone_is_gone_everywhere(library: Library) -> None:
    library.put(library.staff, "d")
    question, near = "when does the marmot whistle?", "When does the marmot whistle"
    cached = library.search(library.staff), library.search(library.staff)
    assert [found["cache"] for found in cached] == ["miss", "exact"]
    answers = [library.send(library.staff, "/v1/answer", {"query": query}).json for query in (question, question, near)]
    assert [answer["cache"] for answer in answers] == ["miss", "exact", "near"]
    assert "eagle" in answers[2]["answer"]
    library.change("d", access=Access(("hr",)))  # the passages still say "public", and no counter was raised
    for caller, texts in ((library.staff, []), (library.hr, [TEXT]), (library.admin, [TEXT])):
        assert library.texts(caller) == texts
    found = library.search(library.staff)
    assert (found["cache"], found["results"]) == ("miss", [])
    for query in (question, near):
        for fields in ({}, {"cache": False}):
            answer = library.send(library.staff, "/v1/answer", {"query": query, **fields}).json
            assert (answer["results"], answer["citations"], "eagle" in json.dumps(answer)) == ([], [], False)
            stream = library.send(library.staff, "/v1/answer", {"query": query, "stream": True, **fields})
            assert "eagle" not in stream.get_data(as_text=True)
    assert library.search(library.staff, explain=True, highlight=True, max_per_document=1)["results"] == []
    assert library.send(library.staff, document_path("d"), method="GET").status_code == 404


def test_a_cached_answer_of_a_version_that_was_replaced_is_made_anew(library: Library) -> None:
    library.put(library.staff, "d")
    library.search(library.staff)
    assert library.search(library.staff)["cache"] == "exact"
    head = library.change("d", version=Version("another", 1, "braid-passages-000001"))
    assert library.search(library.staff)["cache"] == "miss"
    library.change("d", version=head.version)
    assert library.search(library.staff)["results"] == []  # what was found meanwhile was nothing: that needs no check
    assert len(library.shown(library.staff)) == 1


def test_a_neighbour_gives_way_to_the_document_where_the_caller_can_read_it(library: Library) -> None:
    library.put(library.hr, "d", "A marmot of the personnel office.", acl=["hr"])
    library.put(library.staff, "d", "A marmot of the canteen.", acl=["staff", "guests"])
    sales = library.world.user("sales", library.tenant, ["sales"], WRITER)
    library.put(sales, "d", "A marmot of the sales office.", acl=["sales", "guests"])
    assert library.texts(library.staff) == ["A marmot of the canteen."]
    assert library.texts(sales) == ["A marmot of the sales office."]
    for caller in (library.hr, library.admin):
        assert library.texts(caller) == ["A marmot of the personnel office."]
    assert len(library.texts(library.world.user("guest", library.tenant, ["guests"], WRITER))) == 1  # of two neighbours
    library.change("d", access=Access())
    assert library.texts(library.staff) == []  # the passages of what it may read now can't be found by it yet
    head = library.change("d", version=None)
    assert library.texts(library.staff) == ["A marmot of the canteen."]
    assert len(library.texts(library.admin)) == 1
    library.change("d", version=head.version, access=Access(("hr",)))
    library.change("d", twin=twin_name("user:staff"), access=Access(("nobody",)))
    assert library.texts(library.staff) == []


def test_gaps_are_filled_and_pages_do_not_repeat(library: Library) -> None:
    names = [f"d{n}" for n in range(8)]
    for name in names:
        library.put(library.staff, name, f"A marmot of {name}.")
    order = library.shown(library.staff)
    assert sorted(order) == names
    for name in (order[0], order[2]):
        library.change(name, access=Access(("hr",)))
    alive = [name for name in order if name not in (order[0], order[2])]
    for fields in ({}, {"highlight": True}, {"max_per_document": 1}):
        pages = [library.shown(library.staff, size=3, **{"from": start}, **fields) for start in (0, 3)]
        assert pages == [alive[:3], alive[3:]]


def test_neighbours_are_checked_when_they_are_read(library: Library) -> None:
    library.put(library.staff, "d")
    head, scope = library.head("d"), Scope(library.tenant, frozenset({"staff"}))
    assert head.version is not None
    place = Place("d", head.version.token, 0)
    arguments = library.cluster, HeadCheck(library.cluster), scope, [place], clauses(scope)
    assert [hit.text for hit in shown_at(*arguments, timeout_s=5.0).values()] == [TEXT]
    library.change("d", access=Access(("hr",)))
    assert shown_at(*arguments, timeout_s=5.0) == {}


@pytest.fixture
def headless(world: World) -> Iterator[Services]:
    """The service with an index of heads that is not there; templates are compared with the real one."""
    cluster = Cluster(world.settings.opensearch)
    cluster.heads_index = f"braid-lost-{uuid4().hex[:8]}"
    services = Services(world.settings, cluster, load_encoder(world.settings))
    yield services
    services.close()


def test_without_heads_nothing_is_answered_not_even_from_a_cache(library: Library, headless: Services) -> None:
    library.put(library.staff, "d")
    library.search(library.staff)
    assert library.search(library.staff)["cache"] == "exact"
    client = create_app(headless).test_client()
    headers = {"Authorization": f"Bearer {library.staff.token}"}
    for path in ("/v1/search", "/v1/answer"):
        for body in ({"query": "marmot"}, {"query": "marmot", "cache": False}, {"query": "marmot", "mode": "lexical"}):
            answer = client.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.json["type"]) == (503, "urn:braid:problem:store-not-ready")
            assert TEXT not in answer.get_data(as_text=True)


def test_a_search_that_takes_no_heads_shows_what_it_finds(library: Library, headless: Services) -> None:
    library.put(library.staff, "d")
    library.change("d", version=None)
    request = {"query": "marmot", "mode": "lexical"}
    service = SearchService(library.world.settings, library.cluster, headless.encoder, headless.gate, headless.executor)
    found = service.search(SearchRequest.model_validate(request), Scope(library.tenant))
    assert ([hit.document_id for hit in found.hits], found.checked) == (["d"], False)


@pytest.mark.parametrize(("access", "outcome"), [(Access(("staff", "hr")), "exact"), (Access(("hr",)), "miss")])
def test_who_waited_for_another_s_answer_checks_it_too(
    library: Library, headless: Services, access: Access, outcome: str
) -> None:
    library.put(library.staff, "d")
    head = library.head("d")
    assert head.version is not None
    headless.cluster.heads_index = library.cluster.heads_index
    request = SearchRequest.model_validate({"query": "marmot"})
    scope = Scope(library.tenant, frozenset({"staff"}))

    def look() -> CacheLookup:
        return headless.answer_cache.look_up("search", ReadCall(request, scope, ALL_ON, Deadline.after(30_000)))

    first = look()
    assert first.outcome == "miss"
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(look)
        time.sleep(0.5)  # by then it waits; one that comes later finds the answer, and checks that
        library.change("d", access=access)
        first.keep({"results": []}, [("d", head.version.token)])
        assert second.result(30).outcome == outcome
        second.result().finish(None)
