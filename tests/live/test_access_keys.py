"""Keys and tokens against the real store, on a service with two workers: made, used, refused, revoked, replaced."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from app.config import load_settings
from app.errors import InvalidInput, StoreError
from app.gateway.keys import KeyRing
from app.store import key_records as key_store
from app.store.client import Cluster
from tests.conftest import running_braid
from tests.proxy import Proxy
from tests.service import running_service
from tests.unit.gateway.provider import AUDIENCE, ISSUER, Provider, SigningKey, running_provider, token

pytestmark = pytest.mark.live

SECRET = "a-secret-for-tests-of-32-characters-and-more"
RSA = SigningKey("rsa", "rsa-1")
DOCUMENTS = {
    "open": ("The lighthouse keeper counts ships at dawn.", ["public"]),
    "staff": ("The lighthouse safe opens with 4711.", ["staff"]),
    "board": ("The lighthouse will be sold in May.", ["board"]),
    "ann": ("The lighthouse letter is for Ann alone.", ["user:ann"]),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running_provider() as found:
        found.keys = [RSA.jwk()]
        yield found


@pytest.fixture(scope="module")
def settings(provider: Provider) -> dict[str, str]:
    return {
        "keys_secret": SECRET,
        "api_key": "operators-own",
        "workers": "2",
        "jwt_jwks_url": provider.url,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
    }


@pytest.fixture(scope="module")
def up(node_settings: object, settings: dict[str, str]) -> Iterator[dict[str, Any]]:
    with running_braid(env={f"BRAID_{name.upper()}": value for name, value in settings.items()}) as found:
        for tenant, key in (("default", "operators-own"), ("beta", made(found, tenant="beta", roles=["admin"]))):
            for name, (text, acl) in DOCUMENTS.items():
                body = {"document_id": name, "text": f"{text} ({tenant})", "acl": acl}
                assert call(found, key, "POST", "/v1/documents", body).status_code == 200
        yield found


def braid(up: dict[str, Any], *arguments: str, code: int = 0, **env: str) -> str:
    whole = {"BRAID_DATA_DIR": str(up["data"]), "PATH": "/usr/local/bin:/usr/bin:/bin", "COLUMNS": "300"}
    command = [sys.executable, "-m", "app.cli", "keys", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**whole, "BRAID_KEYS_SECRET": SECRET, **env},
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def made(up: dict[str, Any], **rights: Any) -> str:
    """A key, made as the command line makes it, but faster."""
    with ring_of(up) as ring:
        return ring.create(**{"name": "test", "tenant": "default", **rights})[1]


@contextmanager
def ring_of(up: dict[str, Any]) -> Iterator[KeyRing]:
    settings = load_settings(opensearch_url=up["opensearch_url"], keys_secret=SECRET)
    cluster = Cluster(settings.opensearch)
    try:
        yield KeyRing(settings.access, cluster)
    finally:
        cluster.close()


def id_of(key: str) -> str:
    return key.split("_")[1]


def call(
    up: dict[str, Any], key: str | None, method: str = "POST", path: str = "/v1/search", body: Any = None
) -> httpx2.Response:
    """One request on a connection of its own, so that any worker may get it."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if method == "POST" and body is None:
        body = {"query": "lighthouse", "mode": "lexical"}
    with httpx2.Client(base_url=up["url"], timeout=60, trust_env=False) as client:
        return client.request(method, path, json=body, headers=headers)


def seen(up: dict[str, Any], key: str) -> set[str]:
    answer = call(up, key)
    assert answer.status_code == 200, answer.text
    return {f"{item['document_id']}@{item['text'].split('(')[-1].rstrip(')')}" for item in answer.json()["results"]}


def test_a_key_is_made_and_sees_what_its_groups_may_read(up: dict[str, Any]) -> None:
    first = json.loads(braid(up, "create", "--name", "first", "--group", "staff", "--expires", "30d", "--json"))
    assert seen(up, first["key"]) == {"open@default", "staff@default"}
    assert (first["roles"], first["tenant"], first["state"]) == (["search"], "default", "active")
    assert seen(up, made(up)) == {"open@default"}
    assert seen(up, made(up, groups=["staff", "board"])) == {
        "open@default",
        "staff@default",
        "board@default",
    }
    assert seen(up, made(up, groups=["Staff"])) == {"open@default"}
    assert seen(up, made(up, tenant="beta", groups=["staff"])) == {"open@beta", "staff@beta"}
    assert seen(up, made(up, tenant="Beta", roles=["admin"])) == set()
    whole = {f"{name}@default" for name in DOCUMENTS}
    assert seen(up, made(up, roles=["admin"])) == seen(up, "operators-own") == whole
    assert call(up, made(up), "GET", "/v1/documents/staff").status_code == 404
    assert call(up, made(up, groups=["staff"]), "GET", "/v1/documents/staff").status_code == 200


def test_a_key_does_what_its_roles_are_for(up: dict[str, Any]) -> None:
    search, ingest, metrics = (made(up, roles=[role]) for role in ("search", "ingest", "metrics"))
    document = {"document_id": "by-key", "text": "Written with a key."}
    for key, method, path, body, status in (
        (search, "POST", "/v1/search", None, 200),
        (search, "POST", "/v1/documents", document, 403),
        (search, "DELETE", "/v1/documents/by-key", None, 403),
        (search, "POST", "/v1/feedback", {"query_id": "0" * 32, "label": "relevant"}, 403),
        (search, "GET", "/metrics", None, 403),
        (ingest, "POST", "/v1/documents", document, 200),
        (ingest, "POST", "/v1/search", None, 403),
        (ingest, "DELETE", "/v1/documents/by-key", None, 204),
        (metrics, "GET", "/metrics", None, 200),
        (metrics, "GET", "/v1/documents/open", None, 403),
        (None, "POST", "/v1/search", None, 401),
        ("wrong", "POST", "/v1/search", None, 401),
        (None, "GET", "/healthz", None, 200),
    ):
        answer = call(up, key, method, path, body)
        assert answer.status_code == status, (method, path, answer.text)


def test_readiness_counts_for_nobody_who_may_not_know(up: dict[str, Any]) -> None:
    for key in (None, "wrong", made(up), made(up, roles=["ingest"])):
        answer = call(up, key, "GET", "/readyz")
        assert (answer.status_code, answer.json()["passages"]) == (200, None)
    assert call(up, "operators-own", "GET", "/readyz").json()["passages"] == len(DOCUMENTS)
    assert call(up, made(up, roles=["metrics"]), "GET", "/readyz").json()["passages"] == len(DOCUMENTS)
    other = made(up, roles=["metrics"], tenant="empty")
    assert call(up, other, "GET", "/readyz").json()["passages"] == 0


def test_the_index_is_hidden_strict_and_knows_no_key(up: dict[str, Any]) -> None:
    key = made(up, groups=["staff"], rate="100/minute")
    with httpx2.Client(base_url=up["opensearch_url"], timeout=60, trust_env=False) as store:
        shown = store.get("/braid-keys").json()["braid-keys"]
        assert shown["settings"]["index"]["hidden"] == "true"
        assert shown["mappings"]["dynamic"] == "strict"
        record = store.get(f"/braid-keys/_doc/{id_of(key)}").json()["_source"]
        assert key.split("_")[2] not in json.dumps(record)
        assert (record["groups"], record["rate"]) == (["staff"], "100/minute")
        assert "braid-keys" not in store.get("/braid-*").json()


def test_who_can_write_to_the_index_can_not_widen_a_key(up: dict[str, Any]) -> None:
    key, admin = made(up), made(up, roles=["admin"])
    with httpx2.Client(base_url=up["opensearch_url"], timeout=60, trust_env=False) as store:
        record = store.get(f"/braid-keys/_doc/{id_of(key)}").json()["_source"]
        strong = store.get(f"/braid-keys/_doc/{id_of(admin)}").json()["_source"]
        for forged in (
            {**record, "roles": ["admin"]},
            {**record, "groups": ["staff"]},
            {**record, "tenant": "beta"},
            {**strong, "secret_mac": record["secret_mac"]},
            strong,
        ):
            assert store.put(f"/braid-keys/_doc/{id_of(key)}", json=forged).status_code == 200
            time.sleep(1.1)  # what a worker has read it trusts for a second
            assert call(up, key).status_code == 401
        assert "forged" in braid(up, "list")
        assert store.put(f"/braid-keys/_doc/{id_of(key)}", json=record).status_code == 200
        time.sleep(1.1)
        assert call(up, key).status_code == 200


def test_a_revoked_key_is_refused_by_all_workers_within_two_seconds(up: dict[str, Any]) -> None:
    key = made(up)
    for _ in range(20):
        assert call(up, key).status_code == 200
    stop = threading.Event()
    answers: list[tuple[float, int]] = []

    def ask() -> None:
        while not stop.is_set():
            started = time.monotonic()
            answers.append((started, call(up, key, "GET", "/v1/models").status_code))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while len(answers) < 20:
        assert time.monotonic() < until
        time.sleep(0.01)
    with ring_of(up) as ring:
        ring.revoke(id_of(key))
    revoked = time.monotonic()
    while not any(started > revoked + 3 for started, _ in list(answers)):
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    late = [status for started, status in answers if started > revoked + 2]
    assert late
    assert set(late) == {401}
    taken = [started - revoked for started, status in answers if status == 200]
    print(f"the last request that was let in began {max(taken):.2f} s after the key was revoked")
    for _ in range(20):
        assert call(up, key).status_code == 401
    assert "revoked" in call(up, key).json()["detail"]


def test_a_key_is_replaced_with_an_overlap(up: dict[str, Any]) -> None:
    old = made(up, groups=["staff"], rate="50/minute")
    new = json.loads(braid(up, "rotate", id_of(old), "--overlap", "1h", "--json"))
    assert (new["rate"], new["groups"], new["rotated_from"]) == ("50/minute", ["staff"], id_of(old))
    assert seen(up, old) == seen(up, new["key"]) == {"open@default", "staff@default"}
    gone = json.loads(braid(up, "rotate", id_of(old), "--overlap", "0s", "--json"))
    time.sleep(1.1)
    assert call(up, old).status_code == 401
    assert call(up, gone["key"]).status_code == 200


def test_many_keys_are_listed_page_after_page_and_old_knowledge_changes_none(
    up: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "_PAGE", 2)
    mine = [id_of(made(up)) for _ in range(7)]
    with ring_of(up) as ring:
        listed = [record.id for record in ring.all_keys()]
        assert len(listed) == len(set(listed))
        assert set(mine) <= set(listed)
    cluster = Cluster(load_settings(opensearch_url=up["opensearch_url"]).opensearch)
    known = key_store.get(cluster, mine[0])
    assert known is not None
    key_store.replace(cluster, known, known.source)
    with pytest.raises(InvalidInput, match="repeat the command"):
        key_store.replace(cluster, known, known.source)
    with pytest.raises(StoreError, match="409"):
        key_store.create(cluster, mine[0], known.source)
    assert key_store.get(cluster, "0" * 24) is None
    cluster.close()


def test_what_the_command_line_says(up: dict[str, Any]) -> None:
    shown = braid(up, "create", "--name", "for [bold]people[/bold]", "--role", "search", "--role", "feedback")
    assert "shown only now" in shown
    key = shown.split()[0]
    assert call(up, key).status_code == 200
    listed = braid(up, "list")
    assert id_of(key) in listed
    assert "for [bold]people[/bold]" in listed
    assert key.split("_")[2] not in listed
    records = json.loads(braid(up, "list", "--json"))
    assert not any("mac" in name or name == "key" for record in records for name in record)
    assert "role 'root' is unknown; known roles: search" in braid(up, "create", "--name", "x", "--role", "root", code=1)
    assert "openssl rand -hex 32" in braid(up, "list", code=2, BRAID_KEYS_SECRET="")
    assert "is revoked" in braid(up, "revoke", id_of(key))
    time.sleep(1.1)
    assert call(up, key).status_code == 401


def test_tokens_end_to_end(up: dict[str, Any]) -> None:
    ann = token(RSA, tenant="default", groups=["staff"], roles=["search", "feedback"])
    assert seen(up, ann) == {"open@default", "staff@default", "ann@default"}
    bob = token(RSA, tenant="beta", sub="bob", groups=[], roles=["search", "feedback"])
    assert seen(up, bob) == {"open@beta"}
    assert call(up, ann, "POST", "/v1/documents", {"document_id": "x", "text": "x"}).status_code == 403
    found = call(up, ann).json()
    said = {"query_id": found["query_id"], "result_id": found["results"][0]["id"], "label": "relevant"}
    assert call(up, bob, "POST", "/v1/feedback", said).status_code == 404
    assert call(up, made(up, roles=["admin"]), "POST", "/v1/feedback", said).status_code == 404
    assert call(up, "operators-own", "POST", "/v1/feedback", said).status_code == 404
    assert call(up, ann, "POST", "/v1/feedback", said).status_code == 202
    for wrong in (
        token(RSA, exp=int(time.time()) - 600),
        token(RSA, aud="other"),
        token(SigningKey("rsa", "rsa-1")),
        token(RSA, groups=["user:bob"]),
        token(RSA)[:-8],
    ):
        answer = call(up, wrong)
        assert answer.status_code == 401
        assert wrong.split(".")[2] not in answer.text
    assert call(up, token(RSA, roles=[])).status_code == 403


def test_a_store_that_is_away_is_no_wrong_key_and_lets_nobody_in(up: dict[str, Any], settings: dict[str, str]) -> None:
    key, other = made(up), made(up)
    there, _, port = up["opensearch_url"].rpartition(":")
    with Proxy(int(port)) as proxy:
        url = f"{there}:{proxy.port}"
        with running_service(**{**settings, "workers": "1", "opensearch_url": url}) as service:
            there = {"url": service.url}
            assert call(there, key, "GET", "/v1/models").status_code == 200
            proxy.cut()
            time.sleep(1.1)
            for known in (key, other):
                answer = call(there, known, "GET", "/v1/models")
                assert answer.status_code == 503, answer.text
                assert known not in answer.text
            assert call(there, f"braid_{'0' * 24}_{'0' * 64}", "GET", "/v1/models").status_code == 401
            assert call(there, "operators-own", "GET", "/v1/models").status_code == 200
            assert call(there, token(RSA), "GET", "/v1/models").status_code == 200
            proxy.mend()
            until = time.monotonic() + 60
            while call(there, key, "GET", "/v1/models").status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.2)
