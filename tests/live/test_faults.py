"""Parts that are away, hang or talk nonsense: what callers see meanwhile, and that all is well afterwards.

A few rows of benchmarks/faults.py; the parts are real, and a proxy before each fails as told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from app.api.factory import create_app
from app.api.services import Services
from app.config import load_settings
from app.generation.answer import WeighingResult
from app.passage import Hit
from benchmarks.proxy import FaultyProxy, http_answer
from tests.conftest import running_braid
from tests.unit.generation.endpoint import complete, endpoint, says

pytestmark = pytest.mark.live

TEXTS = {
    "owl": "The owl hunts by night and hears a mouse under the snow.",
    "fox": "The fox hunts in the morning and buries what it can't eat.",
    "hare": "The hare has a white coat in winter and a brown one in summer.",
}
QUESTION = "When does the owl hunt?"
BUDGET_MS = 3000
"""Generous, since other work may have the cores; a part that hangs uses up what its stage may have of it."""
HTML = http_answer(b"<html><body>It works!</body></html>", "text/html")
OTHER = http_answer(b'{"message": "hello", "results": 5, "hits": [], "choices": {}}')


@dataclass
class Rig:
    """A service whose parts are reached through proxies."""

    client: httpx2.Client
    proxies: dict[str, FaultyProxy]

    def search(self, query: str = QUESTION, **fields: Any) -> httpx2.Response:
        return self.client.post("/v1/search", json={"query": query, "timeout_ms": BUDGET_MS, **fields})

    def answer(self, **fields: Any) -> httpx2.Response:
        return self.client.post("/v1/answer", json={"query": QUESTION, "timeout_ms": BUDGET_MS, **fields})

    def whole(self) -> bool:
        """Whether nothing is missing: searched, cached, and answered by the model."""
        searched, answered = self.search(), self.answer(cache=False)
        if searched.status_code != 200 or answered.status_code != 200:
            return False
        found, told = searched.json(), answered.json()
        return not found["degraded"] and not told["degraded"] and found["cache"] == "exact" and told["model"] == "chat"


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["document_id"] for item in answer.json()["results"]]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def rig(opensearch_url: str, valkey_url: str) -> Iterator[Rig]:
    with ExitStack() as stack:
        chat = stack.enter_context(endpoint(says(*complete("It hunts by night", " [1]."))))
        ports = {"opensearch": opensearch_url, "redis": valkey_url, "llm": chat.url}
        proxies = {name: stack.enter_context(FaultyProxy(urlsplit(url).port or 0)) for name, url in ports.items()}
        env = {
            "BRAID_OPENSEARCH_URL": f"http://127.0.0.1:{proxies['opensearch'].port}",
            "BRAID_REDIS_URL": f"redis://127.0.0.1:{proxies['redis'].port}/0",
            "BRAID_LLM_URL": f"http://127.0.0.1:{proxies['llm'].port}",
            "BRAID_LLM_MODEL": "chat",
            "BRAID_TENANT": "faults",
        }
        up = stack.enter_context(running_braid(env=env))
        client = stack.enter_context(httpx2.Client(base_url=up["url"], timeout=120, trust_env=False))
        for name, text in TEXTS.items():
            assert client.post("/v1/documents", json={"document_id": name, "text": text}).status_code == 200
        yield Rig(client, proxies)


@pytest.fixture
def healthy(rig: Rig) -> Iterator[Rig]:
    """The rig with everything there, before the test and, which is part of it, after it."""
    wait_until(rig.whole, "the service was not whole before the fault")
    yield rig
    for proxy in rig.proxies.values():
        proxy.heal()
    wait_until(rig.whole, "the service did not recover")


GARBAGE = b"\x00\xff\xfegarbage\r\n\r\n" * 3
FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"fault": "refuse"},
    "hangs": {"fault": "hang"},
    "reset": {"fault": "reset", "after": 3},
    "garbage": {"fault": "answer", "answer": GARBAGE},
    "something else": {"fault": "answer", "answer": b"+OK\r\n"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_without_redis_the_same_is_found_and_nothing_is_cached(healthy: Rig, fault: str) -> None:
    before = ids(healthy.search(cache=False))
    healthy.proxies["redis"].fail(**FAULTS[fault])
    for _ in range(4):
        found = healthy.search()
        assert ids(found) == before
        assert found.json()["cache"] in {"off", "miss"}
    assert healthy.answer(cache=False).json()["model"] == "chat"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"fault": "refuse"}, {503}),
        ({"fault": "hang"}, {503, 504}),
        ({"fault": "reset", "after": 40}, {503}),
        ({"fault": "cut", "after": 250}, {502, 503}),
        ({"fault": "answer", "answer": HTML}, {502, 503}),
        ({"fault": "answer", "answer": OTHER}, {502, 503}),
        ({"fault": "answer", "answer": http_answer(b"{", "application/json")}, {502, 503}),
        ({"fault": "answer", "answer": http_answer(b"", "text/plain", "503 Away")}, {503}),
    ],
    ids=["refused", "hangs", "reset", "cut off", "HTML", "other JSON", "broken JSON", "503"],
)
def test_without_opensearch_callers_are_told_so(healthy: Rig, how: dict[str, Any], status: set[int]) -> None:
    healthy.proxies["opensearch"].fail(**how)
    for ask in (healthy.search, healthy.answer, lambda: healthy.search(cache=False)):
        wait_until(lambda ask=ask: ask().status_code != 200, "the fault was not seen")  # type: ignore[misc]
        told = ask()
        assert told.status_code in status, told.text
        assert told.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"fault": "refuse"}, {"unreachable", "unavailable"}),
        ({"fault": "hang"}, {"timeout"}),
        ({"fault": "reset", "after": 40}, {"unreachable", "unavailable", "broken-off"}),
        ({"fault": "answer", "answer": HTML}, {"bad-answer", "broken-off"}),
        ({"fault": "answer", "answer": OTHER}, {"bad-answer", "broken-off"}),
    ],
    ids=["refused", "hangs", "reset", "HTML", "other JSON"],
)
def test_without_the_language_model_passages_are_quoted(healthy: Rig, how: dict[str, Any], reason: set[str]) -> None:
    healthy.proxies["llm"].fail(**how)
    told = healthy.answer(cache=False)
    assert told.status_code == 200, told.text
    found = told.json()
    assert found["model"] == "extractive"
    assert "night" in found["answer"]
    (said,) = [item["reason"] for item in found["degraded"] if item["stage"] == "generation"]
    assert said.partition(":")[0] in reason


def test_weighing_the_passages_of_an_answer_belongs_to_its_turn(
    braid_up: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It embeds a dozen sentences: done outside of the bound, answers pile up and each makes all others late."""
    addresses = {name: braid_up[name] for name in ("opensearch_url", "redis_url")}
    services = Services.open(load_settings(**addresses, concurrency=1, queue=0, audit_log="off", query_log="off"))
    weighing, go_on = threading.Event(), threading.Event()
    weigh = services.generator.weigh

    def slowly(question: str, hits: Sequence[Hit], timeout_s: float) -> WeighingResult:
        weighing.set()
        assert go_on.wait(120)
        return weigh(question, hits, timeout_s)

    monkeypatch.setattr(services.generator, "weigh", slowly)
    app = create_app(services)
    body = {"query": "what is going on", "cache": False, "timeout_ms": 120_000}
    statuses: list[int] = []
    first = threading.Thread(
        target=lambda: statuses.append(app.test_client().post("/v1/answer", json=body).status_code)
    )
    first.start()
    try:
        assert weighing.wait(120)
        assert app.test_client().post("/v1/search", json=body).status_code == 429
        go_on.set()
        first.join()
        assert statuses == [200]
        assert app.test_client().post("/v1/search", json=body).status_code == 200
    finally:
        go_on.set()
        first.join()
        services.close()
