"""Who may add passages can't compute, from any number in an answer, whether others hold a word that it may not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.live.leak.oracle import Canaries
from tests.live.leak.world import World, open_world

pytestmark = pytest.mark.live

VOLATILE = ("query_id", "timings", "index_generation", "cache", "cache_stale_ms")
MINE = ("ledger {word}", "{word} with a longer text that says little of it", "the ledger of marmots", "ledger ledger")
ASKED: list[dict[str, Any]] = [
    {"mode": "lexical"},
    {"mode": "lexical", "rerank": True},
    {"mode": "dense"},
    {"mode": "dense", "rerank": True},
    {},
    {"rerank": False},
    {"rerank": {"weight": 0.3, "depth": 3}},
    {"fusion": {"alpha": 0.1}, "rerank": False},  # not 0: native, equal scores have no order of their own
    {"fusion": {"alpha": 0.5}},
    {"fusion": {"learned": True}},
    {"fusion": {"learned": False, "normalization": "z_score"}},
    {"fusion": {"normalization": "l2", "alpha": 0.0}},
    {"fusion": {"method": "rrf"}},
    {"from": 1, "size": 2},
    {"max_per_document": 1, "mmr": True},
    {"fold_duplicates": True, "highlight": True},
]


@pytest.fixture(scope="module", params=["legs", pytest.param("native", marks=pytest.mark.sweep)])
def own_world(request: pytest.FixtureRequest, opensearch_url: str, valkey_url: str) -> Iterator[World]:
    """A service that reranks without haste, so that no answer depends on what else the machine does."""
    with open_world(opensearch_url, valkey_url, hybrid_way=request.param, rerank_budget_ms=60_000) as found:
        yield found


def answers(world: World, token: str, word: str) -> list[Any]:
    """All that is told of a word, less what differs from one call to the next."""
    found = []
    for body in ASKED:
        for explain in (True, False):
            for path in ("/v1/search", "/v1/answer"):
                asked = {"query": word, "explain": explain, "cache": False, "timeout_ms": 60_000, **body}
                reply = world.client.post(path, json=asked, headers={"Authorization": f"Bearer {token}"})
                assert reply.status_code == 200, reply.text
                assert reply.json["results"]
                found.append({name: value for name, value in reply.json.items() if name not in VOLATILE})
    return found


def test_no_number_depends_on_passages_that_the_caller_does_not_see(own_world: World) -> None:
    world, tenant, word = own_world, f"words-{uuid4().hex[:12]}", Canaries(uuid4().hex).word()
    mallory = world.user("mallory", tenant, ["staff"], ("search", "ingest"))
    admin = world.key_for("admin", tenant, (), ("admin",))
    other = world.key_for("other", f"{tenant}-other", (), ("admin",))

    def put(token: str, number: int, text: str, acl: list[str]) -> None:
        body = {"document_id": f"{acl}-{number}", "text": text.format(word=word), "acl": acl}
        reply = world.client.post("/v1/documents", json=body, headers={"Authorization": f"Bearer {token}"})
        assert reply.status_code == 200, reply.text

    for number, text in enumerate(MINE):
        put(mallory.token, number, text, ["user:mallory"])
    before, admins = answers(world, mallory.token, word), answers(world, admin.token, word)
    for owner, acl in ((admin, "board"), (other, "public")):
        for number in range(5):
            put(owner.token, number, f"{{word}} secret {number} {{word}}", [acl])
        for number, (now, then) in enumerate(zip(answers(world, mallory.token, word), before, strict=True)):
            for name in then:  # one field at a time: a difference is printed whole
                assert now[name] == then[name], (ASKED[number // 4], name)
    after = answers(world, admin.token, word)
    assert {item["results"][0]["scores"]["lexical"] for item in admins} != {None}  # there is something to withhold
    assert after != admins
