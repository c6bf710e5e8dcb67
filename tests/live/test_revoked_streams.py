"""A stream ends when its caller's key does, and with it the language model's work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import orjson
import pytest

from tests.live.leak.oracle import Caller
from tests.live.leak.world import World, open_world
from tests.unit.generation.endpoint import Endpoint, Write, chunk, complete, endpoint

pytestmark = pytest.mark.live

PIECES = 50


def slowly(write: Write, closing: threading.Event) -> None:
    for number in range(PIECES):
        write(chunk(f"word{number} "))
        closing.wait(0.1)
    for event in complete("[1]."):
        write(event)


@pytest.fixture(scope="module")
def model() -> Iterator[Endpoint]:
    with endpoint(slowly) as found:
        yield found


@pytest.fixture(scope="module")
def slow_world(opensearch_url: str, valkey_url: str, model: Endpoint) -> Iterator[World]:
    with open_world(opensearch_url, valkey_url, llm_url=model.url, llm_model="slow") as found:
        yield found


def events(world: World, caller: Caller) -> Iterator[tuple[str, Any]]:
    body = {"query": "when does the ferry sail", "stream": True, "cache": False}
    headers = {"Authorization": f"Bearer {caller.token}"}
    answer = world.client.post("/v1/answer", json=body, headers=headers, buffered=False)
    assert answer.status_code == 200, answer.text
    for part in answer.iter_encoded():
        name, _, data = part.decode().strip().partition("\n")
        yield name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))
    answer.close()


@pytest.mark.parametrize("ends", ["the key", "another key", "a token"])
def test_a_stream_ends_soon_after_its_key_was_revoked(slow_world: World, model: Endpoint, ends: str) -> None:
    tenant = f"streams-{uuid4().hex[:12]}"
    caller, other = (slow_world.key_for(name, tenant, ["crew"], ("search", "ingest")) for name in ("one", "two"))
    user = slow_world.user("ann", tenant, ["crew"], ("search",))
    body = {"document_id": "d", "text": "The ferry sails at noon.", "acl": ["crew"]}
    headers = {"Authorization": f"Bearer {other.token}"}
    assert slow_world.client.post("/v1/documents", json=body, headers=headers).status_code == 200
    seen = []
    for name, data in events(slow_world, user if ends == "a token" else caller):
        seen.append((name, data))
        if [name for name, _ in seen].count("token") == 1 and name == "token":
            assert other.key_id is not None
            assert caller.key_id is not None
            slow_world.ring.revoke(caller.key_id if ends == "the key" else other.key_id)
    told = "".join(data["text"] for name, data in seen if name == "token")
    if ends == "the key":
        name, problem = seen[-1]
        assert (name, problem["status"]) == ("error", 401)
        assert "revoked" in problem["detail"]
        assert f"word{PIECES - 1}" not in told
        assert model.hung_up.wait(60), "the model writes on for nobody"
    else:
        assert seen[-1][0] == "done"
        assert f"word{PIECES - 1}" in told
