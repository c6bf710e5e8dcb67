"""Answers of a model that misbehaves, is silent or slow, over the real server: who is there, and who leaves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.config import load_settings
from app.gateway.keys import KeyRing
from app.serving.opening import open_store
from app.store import templates
from tests.service import Service, read_all, running_service
from tests.unit.generation.endpoint import Behaviour, Endpoint, Write, chunk, complete, endpoint
from tests.unit.generation.misbehaviour import EVENTS, MISBEHAVIOURS, Misbehaviour, hangs

pytestmark = pytest.mark.live

OPERATOR = "the-operators-key-of-this-test"
SECRET = "a-secret-of-more-than-32-characters-for-keys"
QUESTION = {"query": "when does the ferry sail", "cache": False}
LLM_TIMEOUT_S, LLM_PLACES = 20, 60
THREADS = 11
"""Requests at once: `BRAID_CONCURRENCY`, `BRAID_QUEUE`, `BRAID_WRITES`, and 8."""
SOON_S = 5.0
"""Seconds for what takes one on a machine with nothing else to do."""


@dataclass
class Rig:
    """The service, its language model, and keys of callers."""

    service: Service
    model: Endpoint
    ring: KeyRing
    tenant: str

    def key(self, name: str) -> tuple[str, str]:
        """The id of a new key, and the key."""
        record, key = self.ring.create(name=name, tenant=self.tenant, roles=("search", "ingest"))
        return record.id, key

    def ask(self, key: str, behaviour: Behaviour, **more: Any) -> httpx2.Response:
        """The whole answer with a model that behaves so."""
        self.behave(behaviour)
        headers = {"Authorization": f"Bearer {key}"}
        with self.service.client() as client:
            return client.post("/v1/answer", json=QUESTION | more, headers=headers)

    def behave(self, behaviour: Behaviour) -> None:
        self.model.behaviour = behaviour
        self.model.hung_up.clear()
        self.model.requests.clear()

    def places_held(self) -> float:
        """Answers that the model writes, as the service counts them."""
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        with self.service.client() as client:
            lines = client.get("/metrics", headers=headers).text.splitlines()
        (held,) = (line.rpartition(" ")[2] for line in lines if line.startswith('write_bounds_held{of="llm"}'))
        return float(held)

    def open(self, key: str, *, stream: bool = True) -> socket.socket:
        """A connection on which a question was asked."""
        body = json.dumps(QUESTION | {"stream": stream}).encode()
        raw = self.service.connect()
        raw.sendall(
            f"POST /v1/answer HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return raw


@pytest.fixture(scope="module")
def rig(opensearch_url: str) -> Iterator[Rig]:
    settings = load_settings(opensearch_url=opensearch_url, keys_secret=SECRET, opensearch_timeout_s=60)
    store = open_store(settings)
    templates.apply(store.cluster, store.capabilities, store.rendered)
    with (
        endpoint(hangs(), raw=True) as model,
        running_service(
            opensearch_url=opensearch_url,
            opensearch_timeout_s="60",
            timeout_ms="60000",
            keys_secret=SECRET,
            api_key=OPERATOR,
            llm_url=model.url,
            llm_model="scripted",
            llm_timeout_s=str(LLM_TIMEOUT_S),
            llm_concurrency=str(LLM_PLACES),
            concurrency="2",
            queue="0",
            writes="1",
            threads="1",
        ) as service,
    ):
        found = Rig(service, model, KeyRing(settings.access, store.cluster), f"streams-{uuid4().hex[:12]}")
        _, key = found.key("writer")
        body = {"document_id": "d", "text": "The ferry sails at noon."}
        with service.client() as client:
            answer = client.post("/v1/documents", json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200, answer.text
        yield found
    store.cluster.close()


def events(text: str) -> list[tuple[str, Any]]:
    """Names and data of a stream's events."""
    found = []
    for part in text.strip().split("\n\n"):
        name, _, data = part.partition("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def until(condition: Callable[[], object], seconds: float = 30) -> float:
    """The seconds until `condition()` is true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def read_until(raw: socket.socket, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        data = raw.recv(65536)
        assert data, found
        found += data
    return found


def test_with_a_model_that_misbehaves_each_answer_is_whole_and_honest(rig: Rig) -> None:
    _, key = rig.key("asker")
    (worker,) = rig.service.workers()
    rig.ask(key, hangs(), timeout_ms=1000)
    before = worker.memory_info().rss
    endless = [bad for bad in MISBEHAVIOURS if bad.endless]
    # what hangs takes a second each time: one with and one without text; the unit tests have all
    for bad in [*(bad for bad in MISBEHAVIOURS if not bad.endless), endless[0], endless[3]]:
        more = {"timeout_ms": 1000} if bad.endless else {}
        # two failures in a row would open the breaker, and nobody would be asked
        assert rig.ask(key, says_well).json()["model"] == "scripted"
        _check(bad, rig.ask(key, bad.behave, **more).json())
        assert rig.ask(key, says_well).json()["model"] == "scripted"
        streamed = events(rig.ask(key, bad.behave, stream=True, **more).text)
        assert [streamed[0][0], streamed[-1][0]] == ["retrieval", "done"], bad.name
        _check(bad, streamed[-1][1])
        told = "".join(data["text"] for name, data in streamed if name == "token")
        assert told.strip() == streamed[-1][1]["answer"], bad.name
    assert worker.memory_info().rss - before < 100 * 1024 * 1024
    assert "Traceback" not in rig.service.said, rig.service.said[-6000:]


def says_well(write: Write, _: threading.Event) -> None:
    write(EVENTS)
    for event in complete("At noon [1]."):
        write(event)


def _check(bad: Misbehaviour, body: dict[str, Any]) -> None:
    told = {item["stage"]: item["reason"] for item in body.get("degraded", ())}
    reason = bad.reason or ("empty" if not bad.text else None)
    assert told.get("generation", "").partition(":")[0] == (reason or ""), (bad.name, body)
    if bad.text:
        assert (body["model"], body["answer"]) == ("scripted", bad.text.strip()), bad.name
    else:
        assert body["model"] == "extractive", bad.name
        assert "The ferry sails at noon." in body["answer"], bad.name


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "writing"])
def test_a_stream_ends_soon_after_its_key_was_revoked(rig: Rig, silent: bool) -> None:
    key_id, key = rig.key("revoked")
    _, other = rig.key("other")
    rig.behave(hangs(EVENTS, chunk("At ")) if silent else slowly)
    with rig.open(key) as raw, rig.open(other) as kept:
        told = read_until(raw, b"event: token")
        read_until(kept, b"event: token")
        rig.ring.revoke(key_id)
        began = time.monotonic()
        told += read_all(raw)
        took = time.monotonic() - began
        assert took < 2 + SOON_S
        assert b"event: error" in told
        assert b"revoked" in told
        if silent:
            assert rig.model.hung_up.wait(SOON_S), "the model writes on for nobody"
        else:
            assert b"event: done" in read_all(kept)
    print(f"ended after {took:.2f} s")


def slowly(write: Write, closing: threading.Event) -> None:
    write(EVENTS)
    for number in range(40):
        write(chunk(f"word{number} "))
        closing.wait(0.1)
    for event in complete("[1]."):
        write(event)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("silent", [(), (EVENTS,), (EVENTS, chunk("At "))], ids=["headers", "text", "rest"])
def test_the_request_to_the_model_ends_when_its_caller_leaves(
    rig: Rig, silent: tuple[bytes, ...], stream: bool
) -> None:
    _, key = rig.key("leaver")
    rig.behave(hangs(*silent))
    raw = rig.open(key, stream=stream)
    until(lambda: rig.model.requests)
    if stream:
        read_until(raw, b"event: retrieval")
    assert not rig.model.hung_up.is_set()
    began = time.monotonic()
    raw.close()
    assert rig.model.hung_up.wait(1 + SOON_S), "the model writes on for nobody"
    print(f"ended after {time.monotonic() - began:.2f} s")


def test_idle_streams_take_no_turn_of_others_and_one_caller_not_all_places(rig: Rig) -> None:
    (_, greedy), (_, modest) = rig.key("greedy"), rig.key("modest")
    rig.behave(hangs(EVENTS))
    with ExitStack() as stack:
        for number in range(LLM_PLACES // 2):
            read_until(stack.enter_context(rig.open(greedy)), b"event: retrieval")
            until(lambda number=number: len(rig.model.requests) > number)
        assert len(rig.model.requests) > THREADS
        # its next one is quoted, and says so
        body = rig.ask(greedy, hangs(EVENTS)).json()
        assert body["model"] == "extractive"
        assert dict.fromkeys(["overloaded: too many answers are being written, this one is quoted"]) == {
            item["reason"]: None for item in body["degraded"] if item["stage"] == "generation"
        }
        assert rig.ask(modest, says_well).json()["model"] == "scripted"
        with rig.service.client() as client:
            headers = {"Authorization": f"Bearer {modest}"}
            for _ in range(5):
                answer = client.post("/v1/search", json=QUESTION, headers=headers)
                assert (answer.status_code, len(answer.json()["results"])) == (200, 1)
        assert rig.places_held() == LLM_PLACES // 2
    until(lambda: rig.places_held() == 0)
