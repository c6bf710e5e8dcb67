"""Cached answers on the real store: found again, never by others, never older than what was written."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import redis
from flask.testing import FlaskClient

from app.api.factory import create_app
from app.api.services import Services
from app.cache.age import stamp
from app.config import load_settings
from app.deadline import Deadline
from app.dev.valkey import start_valkey
from app.errors import StoreUnavailable
from app.features import ALL_ON, Features
from app.search.readiness_gate import ReadinessGate
from app.search.request import SearchRequest
from app.serving.answer_cache import CacheLookup
from app.serving.freshness import Freshness
from app.serving.reads import ReadCall
from app.store import documents
from app.store.filters import Scope

pytestmark = pytest.mark.live


@contextmanager
def opened(up: dict[str, Any], **overrides: Any) -> Iterator[tuple[Services, FlaskClient]]:
    """The application in this process, on the shared node; its readers wait for no writer's refresh."""
    settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"], **overrides)
    services = Services.open(settings)
    try:
        yield services, create_app(services).test_client()
    finally:
        services.close()


@pytest.fixture(scope="module")
def app(braid_up: dict[str, Any]) -> Iterator[tuple[Services, FlaskClient]]:
    with opened(braid_up) as made:
        yield made


@pytest.fixture
def client(app: tuple[Services, FlaskClient]) -> FlaskClient:
    return app[1]


@pytest.fixture
def source(client: FlaskClient) -> str:
    """A source of its own for each test: two documents, found by the word `word`."""
    name = f"cache-{secrets.token_hex(4)}"
    put(client, name, "one", "The marmot whistles when the eagle comes.")
    put(client, name, "two", "A marmot sleeps for six months of the year.")
    return name


def put(client: FlaskClient, source: str, name: str, text: str, **fields: Any) -> None:
    body = {"document_id": f"{source}-{name}", "text": text, "source_id": source, **fields}
    answer = client.post("/v1/documents", json=body)
    assert answer.status_code == 200, answer.text


def search(client: FlaskClient, source: str, query: str = "marmot", **fields: Any) -> dict[str, Any]:
    body = {"query": query, "filter": {"source_id": [source]}, **fields}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [item["document_id"].rpartition("-")[2] for item in found["results"]]


def test_the_same_question_is_answered_from_the_cache(client: FlaskClient, source: str) -> None:
    first, second = search(client, source), search(client, source, "  marmot ")
    assert (first["cache"], second["cache"]) == ("miss", "exact")
    for name in ("results", "total", "degraded", "explanation", "index_generation"):
        assert first[name] == second[name]
    assert first["query_id"] != second["query_id"]
    assert set(second["timings"]) == {"total_ms"}
    assert second["cache_stale_ms"] is None


@pytest.mark.parametrize(
    "other",
    [
        {"size": 1},
        {"mode": "lexical"},
        {"explain": True},
        {"rerank": False},
        {"fusion": {"alpha": 0.2}},
        {"highlight": True},
        {"from": 1},
        {"query": "Marmot"},
        {"query": '"marmot"'},
    ],
)
def test_every_option_counts(client: FlaskClient, source: str, other: dict[str, Any]) -> None:
    search(client, source)
    # "Marmot" is another text, but the same question
    assert search(client, source, **other)["cache"] == ("near" if other == {"query": "Marmot"} else "miss")
    assert search(client, source, **other)["cache"] == ("near" if other == {"query": "Marmot"} else "exact")


def test_a_request_may_ask_for_a_fresh_answer(client: FlaskClient, source: str) -> None:
    search(client, source)
    assert search(client, source, cache=False)["cache"] == "off"


def test_answers_are_cached_streamed_or_not(client: FlaskClient, source: str) -> None:
    body = {"query": "when does the marmot whistle?", "filter": {"source_id": [source]}}
    first = client.post("/v1/answer", json=body).json
    assert first["cache"] == "miss"
    again = client.post("/v1/answer", json=body).json
    assert again["cache"] == "exact"
    assert (again["answer"], again["citations"]) == (first["answer"], first["citations"])
    stream = client.post("/v1/answer", json={**body, "stream": True}).get_data(as_text=True)
    events = [part.split("\n") for part in stream.strip().split("\n\n")]
    assert (events[0][0], events[-1][0]) == ("event: retrieval", "event: done")
    done = json.loads(events[-1][1].removeprefix("data: "))
    assert (done["cache"], done["answer"]) == ("exact", first["answer"])
    told = "".join(json.loads(event[1].removeprefix("data: "))["text"] for event in events if "token" in event[0])
    assert told == first["answer"]


def test_a_streamed_answer_is_there_for_the_next(client: FlaskClient, source: str) -> None:
    body = {"query": "how long does a marmot sleep?", "filter": {"source_id": [source]}}
    first = client.post("/v1/answer", json={**body, "stream": True}).get_data(as_text=True)
    assert '"cache":"miss"' in first
    assert client.post("/v1/answer", json=body).json["cache"] == "exact"


def test_a_reader_who_leaves_before_the_first_byte_holds_nobody_up(client: FlaskClient, source: str) -> None:
    body = {"query": "where does a marmot live?", "filter": {"source_id": [source]}}
    client.post("/v1/answer", json={**body, "stream": True}, buffered=False).close()
    assert client.post("/v1/answer", json=body).json["cache"] in {"miss", "exact"}


def test_feedback_on_a_cached_answer_is_taken(client: FlaskClient, source: str) -> None:
    search(client, source)
    again = search(client, source)
    assert again["cache"] == "exact"
    said = {"query_id": again["query_id"], "result_id": again["results"][0]["id"], "label": "relevant"}
    answer = client.post("/v1/feedback", json=said)
    assert answer.status_code == 202, answer.text


def test_what_is_written_is_found_at_once(client: FlaskClient, source: str) -> None:
    assert search(client, source)["total"] == 2
    put(client, source, "three", "Marmot burrows are ten metres long.")
    found = search(client, source)
    assert (found["cache"], found["total"]) == ("miss", 3)
    put(client, source, "three", "Nothing about it any more, only beavers.")
    assert "three" not in ids(search(client, source, mode="lexical"))
    assert client.delete(f"/v1/documents/{source}-two").status_code == 204
    assert "two" not in ids(search(client, source))


def test_writes_that_bypass_braid_are_seen_within_a_second(
    client: FlaskClient, source: str, braid_up: dict[str, Any]
) -> None:
    assert ids(search(client, source)).count("two") == 1
    with httpx2.Client(base_url=braid_up["opensearch_url"], timeout=60, trust_env=False) as store:
        query = {"query": {"term": {"document_id": f"{source}-two"}}}
        store.post("/braid-passages/_delete_by_query?refresh=true", json=query).raise_for_status()
        time.sleep(1)
        found = search(client, source)
        assert (found["cache"], "two" in ids(found)) == ("miss", False)
        script = {"query": {"term": {"document_id": f"{source}-one"}}, "script": {"source": "ctx._source.acl = ['x']"}}
        store.post("/braid-passages/_update_by_query?refresh=true", json=script).raise_for_status()
        time.sleep(1)
        assert search(client, source)["cache"] == "miss"


def looked_up(services: Services, request: SearchRequest, features: Features) -> CacheLookup:
    return services.answer_cache.look_up(
        "search", ReadCall(request, Scope("default"), features, Deadline.after(10_000))
    )


def scoped(app: tuple[Services, FlaskClient], source: str, scope: Scope) -> Any:
    """What the cache has for this scope; left open as if the answer failed."""
    request = SearchRequest.model_validate({"query": "marmot", "filter": {"source_id": [source]}})
    return app[0].answer_cache.look_up("search", ReadCall(request, scope, ALL_ON, Deadline.after(10_000)))


def kept(app: tuple[Services, FlaskClient], source: str, scope: Scope, answer: str) -> None:
    look = scoped(app, source, scope)
    assert look.outcome == "miss"
    look.finish({"answer": answer, "seen": look.seen, "shown": [], "made_at": stamp()})


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        (Scope("default", frozenset({"a"})), Scope("default", frozenset({"b"}))),
        (Scope("default", frozenset({"a"})), Scope("default", frozenset({"a", "b"}))),
        (Scope("default", frozenset({"a", "b"})), Scope("default", frozenset({"a b"}))),
        (Scope("default", frozenset()), Scope("default", None)),
        (Scope("default", frozenset({"a"})), Scope("Default", frozenset({"a"}))),
        (Scope("default", frozenset({"é"})), Scope("default", frozenset({"e\u0301"}))),
        (Scope("default", frozenset({"ops"})), Scope("default", frozenset({"ｏｐｓ"}))),
        (Scope("default", frozenset({"ops"})), Scope("default", frozenset({"OPS"}))),
        (Scope("default", frozenset({"ops"})), Scope("default", frozenset({"o\u200bps"}))),
    ],
)
def test_who_sees_otherwise_shares_nothing(
    app: tuple[Services, FlaskClient], source: str, mine: Scope, others: Scope
) -> None:
    kept(app, source, mine, "mine")
    assert scoped(app, source, mine).record["answer"] == "mine"
    look = scoped(app, source, others)
    assert look.outcome == "miss"
    look.finish(None)


def test_users_with_equal_groups_share_unless_a_document_names_one(
    app: tuple[Services, FlaskClient], client: FlaskClient, source: str
) -> None:
    def user(name: str) -> Scope:
        return Scope("default", frozenset({"staff", f"user:{name}"}), f"user:{name}")

    nobody, someone = f"n{secrets.token_hex(4)}", f"s{secrets.token_hex(4)}"
    kept(app, source, user("anna"), "of staff")
    assert scoped(app, source, user(nobody)).record["answer"] == "of staff"
    put(client, source, "letter", "A marmot for your eyes only.", acl=[f"user:{someone}"])
    time.sleep(0.6)
    kept(app, source, user(nobody), "of staff, after")
    look = scoped(app, source, user(someone))
    assert look.outcome == "miss"
    assert look.scope == user(someone)
    look.finish(None)
    assert scoped(app, source, user("anna")).record["answer"] == "of staff, after"
    assert f"user:{nobody}" not in scoped(app, source, user(nobody)).scope.principals


def test_flags_and_models_are_part_of_the_key(app: tuple[Services, FlaskClient], source: str) -> None:
    services = app[0]
    request = SearchRequest.model_validate({"query": "marmot", "filter": {"source_id": [source]}})
    keys = set()
    for features in (ALL_ON, replace(ALL_ON, rerank=False), replace(ALL_ON, learned_fusion=False)):
        look = looked_up(services, request, features)
        keys.add(look.key)
        look.finish(None)
    assert len(keys) == 3
    off = replace(ALL_ON, response_cache=False)
    look = looked_up(services, request, off)
    assert (look.outcome, look.key) == ("off", "")


def test_another_setting_is_another_key(braid_up: dict[str, Any], client: FlaskClient, source: str) -> None:
    search(client, source)
    with opened(braid_up, candidates=50) as (_, other):
        assert search(other, source)["cache"] == "miss"
    with opened(braid_up, threads=3) as (_, same):
        assert search(same, source)["cache"] == "exact"


def test_what_was_degraded_is_not_kept(client: FlaskClient, source: str) -> None:
    for _ in range(2):
        found = search(client, source, rerank={"threshold": 0.5})
        lasting = [item["reason"] for item in found["degraded"]]
        assert lasting
        assert all(reason.startswith("no-threshold") for reason in lasting)
    assert found["cache"] == "exact"


def test_corrupt_and_foreign_entries_are_answered_anew(
    client: FlaskClient, source: str, braid_up: dict[str, Any]
) -> None:
    first = search(client, source)
    with redis.Redis.from_url(braid_up["redis_url"]) as raw:
        for key in raw.scan_iter("braid:response:*"):
            if raw.type(key) == b"string":
                raw.set(key, orjson.dumps({"answer": {"results": ["forged"]}, "made_at": time.time(), "seen": {}}))
    again = search(client, source)
    assert (again["cache"], again["results"]) == ("miss", first["results"])


def test_the_same_question_in_other_words_is_answered_from_the_cache(client: FlaskClient, source: str) -> None:
    first = search(client, source, "how long does a marmot sleep?")
    assert first["cache"] == "miss"
    near = search(client, source, "How long does a marmot sleep")
    assert (near["cache"], near["results"]) == ("near", first["results"])
    assert search(client, source, "please tell me how long a marmot sleeps")["cache"] in {"near", "miss"}
    for other in (
        "how long does an eagle sleep?",
        "how long does a marmot not sleep?",
        "how long do 2 marmots sleep?",
        "when does a marmot sleep?",
        'how long does "a marmot" sleep?',
    ):
        assert search(client, source, other)["cache"] == "miss", other
    assert search(client, source, "How long does a  marmot sleep", size=1)["cache"] == "miss"
    put(client, source, "more", "Marmots sleep soundly.")
    assert search(client, source, "How long does the marmot sleep")["cache"] == "miss"


def test_answers_too_and_streamed(client: FlaskClient, source: str) -> None:
    body = {"query": "why does the marmot whistle?", "filter": {"source_id": [source]}}
    first = client.post("/v1/answer", json=body).json
    other = {**body, "query": "Why does the marmot whistle"}
    again = client.post("/v1/answer", json=other).json
    assert (first["cache"], again["cache"]) == ("miss", "near")
    assert again["answer"] == first["answer"]
    stream = client.post("/v1/answer", json={**other, "stream": True}).get_data(as_text=True)
    assert '"cache":"near"' in stream
    assert json.loads(stream.strip().rpartition("data: ")[2])["answer"] == first["answer"]


def test_the_flag_near_cache_switches_it_off(app: tuple[Services, FlaskClient], source: str) -> None:
    services = app[0]
    request = SearchRequest.model_validate({"query": "marmot food", "filter": {"source_id": [source]}})
    kept_look = looked_up(services, request, ALL_ON)
    assert kept_look.outcome == "miss"
    kept_look.finish({"answer": "kept", "seen": kept_look.seen, "shown": [], "made_at": stamp()})
    other = SearchRequest.model_validate({"query": "Marmot food?", "filter": {"source_id": [source]}})
    for features, expected in ((ALL_ON, "near"), (replace(ALL_ON, near_cache=False), "miss")):
        look = looked_up(services, other, features)
        assert look.outcome == expected
        look.finish(None)


def test_many_at_once_cost_one_search(app: tuple[Services, FlaskClient], client: FlaskClient, source: str) -> None:
    service = app[0].search_service
    begun, original = [], service.search

    def counted(*args: Any, **more: Any) -> Any:
        begun.append(1)
        return original(*args, **more)

    service.search = counted  # type: ignore[method-assign]
    try:
        found: list[dict[str, Any]] = []
        threads = [threading.Thread(target=lambda: found.append(search(client, source))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        service.search = original  # type: ignore[method-assign]
    assert len(begun) == 1
    assert [item["cache"] for item in found].count("miss") == 1
    assert [item["results"] for item in found] == [found[0]["results"]] * 8


def test_a_bound_on_staleness_bridges_additions_but_no_deletion(
    braid_up: dict[str, Any], client: FlaskClient, source: str
) -> None:
    with opened(braid_up, cache_staleness_ms=60_000) as (_, bounded):
        first = search(bounded, source)
        put(bounded, source, "three", "Marmot burrows are ten metres long.")
        stale = search(bounded, source)
        assert (stale["cache"], stale["total"]) == ("exact", 2)
        assert stale["cache_stale_ms"] > 0
        assert stale["index_generation"] > first["index_generation"]
        assert search(client, source)["total"] == 3  # a service without the bound shares nothing with it
        assert bounded.delete(f"/v1/documents/{source}-two").status_code == 204
        fresh = search(bounded, source)
        assert (fresh["cache"], sorted(ids(fresh))) == ("miss", ["one", "three"])
        assert fresh["cache_stale_ms"] is None
    with opened(braid_up, cache_staleness_ms=1) as (_, bounded):
        search(bounded, source)
        put(bounded, source, "four", "One more marmot.")
        time.sleep(0.05)
        assert search(bounded, source)["total"] == 3


@pytest.mark.parametrize("revoke", ["narrow", "delete"])
def test_a_revocation_that_redis_refused_is_not_bridged_by_another_process(
    braid_up: dict[str, Any], server_folder: Path, source: str, revoke: str
) -> None:
    with start_valkey(data_dir=server_folder) as server, ExitStack() as stack:
        own = {**braid_up, "redis_url": server.url}
        (_, writer), reader = (stack.enter_context(opened(own, cache_staleness_ms=60_000)) for _ in range(2))
        raw = stack.enter_context(redis.Redis.from_url(server.url))
        staff = Scope("default", frozenset({"public"}))
        kept(reader, source, staff, "with two")
        put(writer, source, "three", "Marmots eat grass.")
        assert scoped(reader, source, staff).record["answer"] == "with two"  # additions are bridged
        raw.config_set("maxmemory-policy", "noeviction")
        raw.config_set("maxmemory", "1")  # every write is refused, as by a Redis that is full
        path = f"/v1/documents/{source}-two"
        done = writer.patch(path, json={"acl": ["hr"]}) if revoke == "narrow" else writer.delete(path)
        assert done.status_code in {200, 204}, done.text
        look = scoped(reader, source, staff)
        assert look.record is None
        raw.config_set("maxmemory", "0")
        look = scoped(reader, source, staff)
        assert (look.outcome, look.record) == ("miss", None)
        look.finish(None)


@pytest.mark.parametrize("back_s", [5.0, 30.0, 3600.0])
def test_a_clock_that_was_set_back_makes_no_answer_younger(
    braid_up: dict[str, Any], source: str, monkeypatch: pytest.MonkeyPatch, back_s: float
) -> None:
    with opened(braid_up, cache_staleness_ms=1000) as bounded:
        search(bounded[1], source)
        time.sleep(1.1)
        true_time = time.time
        monkeypatch.setattr(time, "time", lambda: true_time() - back_s)
        put(bounded[1], source, "three", "Marmots eat grass.")
        found = search(bounded[1], source)
        assert (found["cache"], found["total"]) == ("miss", 3)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/answer"])
@pytest.mark.parametrize("silent", ["passages", "templates"])
def test_who_can_not_say_whether_anything_changed_costs_the_cache_and_not_the_answer(
    braid_up: dict[str, Any], source: str, path: str, silent: str
) -> None:
    released = threading.Event()

    def ask(*_: str) -> Any:
        released.wait(60)
        raise StoreUnavailable("it never said")

    with opened(braid_up) as (services, client), ThreadPoolExecutor() as executor:
        assert client.get("/readyz").status_code == 200  # the first comparison may outlast a search
        assert search(client, source)["cache"] in {"miss", "exact"}
        if silent == "passages":
            services.answer_cache._freshness = Freshness(ask, executor)
        else:
            services.answer_cache._gate = ReadinessGate(ask, executor)
        answer = client.post(path, json={"query": "marmot", "filter": {"source_id": [source]}, "timeout_ms": 5000})
        released.set()
        assert (answer.status_code, answer.json["cache"], answer.json["total"]) == (200, "off", 2)


def test_without_redis_the_service_goes_on(braid_up: dict[str, Any], client: FlaskClient, source: str) -> None:
    gone = {**braid_up, "redis_url": "redis://127.0.0.1:1/0"}
    with opened(gone) as (_, alone):
        for _ in range(3):
            found = search(alone, source)
            assert (found["cache"], found["total"], found["index_generation"]) == ("off", 2, None)
        assert any("Redis" in line for line in alone.get("/readyz").json["warnings"])


def test_strangers_make_no_work_by_asking_whether_the_service_is_ready(
    braid_up: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "the-operators-own-key"
    with opened(braid_up, api_key=key) as (services, client):
        work: list[str] = []
        count, alive = documents.count, services.redis.alive
        monkeypatch.setattr(documents, "count", lambda *given: work.append("count") or count(*given))
        monkeypatch.setattr(services.redis, "alive", lambda: work.append("ping") or alive())
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            work.clear()
            began = time.monotonic()
            for _ in range(50):
                answer = client.get("/readyz", headers=headers)
                assert (answer.status_code, answer.json["passages"]) == (200, None)
            assert len(work) <= 2 * (2 + int(time.monotonic() - began))
        work.clear()
        known = [client.get("/readyz", headers={"Authorization": f"Bearer {key}"}).json for _ in range(3)]
        assert all(item["passages"] is not None for item in known)
        assert work == ["count", "ping"] * 3
