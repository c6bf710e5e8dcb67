"""The real service in this process, with a real node and a real Valkey behind it, and everything that is scanned."""

from __future__ import annotations

import html
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient

from app.api.factory import create_app
from app.api.services import Services
from app.config import Settings, load_settings
from app.feedback import labels
from app.gateway import keys
from app.gateway.keys import KeyRing
from app.serving.opening import open_store
from app.store import templates
from app.store.client import Cluster
from tests.live.leak.oracle import RESTRICTIONS, Caller, Oracle, canaries_in, each_string

OPERATOR_KEY = "the-operators-key-of-the-leak-test"
AUDIENCE, ISSUER = "braid-leak-test", "https://issuer.invalid"
_IDS = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass
class Tally:
    """What was asked, and what came of it."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    cache: Counter[str] = field(default_factory=Counter)
    """Outcomes of answers: miss, exact, near, off."""
    shown: int = 0
    """Passages in answers: a test in which nothing is ever found finds no leaks."""
    changes: Counter[str] = field(default_factory=Counter)
    hits_after_changes: int = 0
    """Answers from a cache to what was asked again right after a write in the same tenant."""

    @property
    def total(self) -> int:
        return sum(self.cases.values())


@dataclass(frozen=True)
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    typed: str
    """Everything that the caller itself sent."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[tuple[str, Any]]:
        """Of a stream: names and data."""
        found = []
        for part in self.body.decode().split("\n\n"):
            if part.strip():
                name, _, data = part.partition("\n")
                found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return found


class World:
    """The service and its callers. `tenants` are new for each example, so that none sees what another left."""

    def __init__(self, settings: Settings, app_client: FlaskClient, cluster: Cluster, signer: _Issuer) -> None:
        self.settings = settings
        self.client = app_client
        self.cluster = cluster
        self.ring = KeyRing(settings.access, cluster)
        self.tally = Tally()
        self.oracle = Oracle()
        self._signer = signer

    # callers

    def key_for(self, name: str, tenant: str, groups: Sequence[str], roles: Sequence[str]) -> Caller:
        """A caller with a key, made as `braid keys create` makes it."""
        record, key = self.ring.create(name=name, tenant=tenant, groups=groups, roles=roles)
        principals = None if "admin" in roles else frozenset(groups)
        return Caller(name, tenant, principals, frozenset(roles), key, record.id)

    def user(self, subject: str, tenant: str, groups: Sequence[str], roles: Sequence[str]) -> Caller:
        """A caller with a token of the identity provider."""
        token = self._signer.token(sub=subject, tenant=tenant, groups=list(groups), roles=list(roles))
        principals = None if "admin" in roles else frozenset(groups) | {f"user:{subject}"}
        return Caller(f"user:{subject}", tenant, principals, frozenset(roles), token)

    def revoke(self, caller: Caller) -> None:
        """End a key, and wait until it must be over."""
        assert caller.key_id is not None
        self.ring.revoke(caller.key_id)
        time.sleep(keys.KEPT_S)

    # asking

    def ask(
        self,
        caller: Caller | None,
        method: str,
        path: str,
        body: Any = None,
        *,
        route: str,
        form: dict[str, Any] | None = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send a request as `caller` (None: nobody), and scan all that comes back."""
        sent: dict[str, Any] = {"headers": dict(headers or {})}
        if caller is not None:
            sent["headers"].setdefault("Authorization", f"Bearer {caller.token}")
        typed = [unquote(path), " ".join(sent["headers"].values())]
        if body is not None:
            sent["data"], sent["content_type"] = orjson.dumps(body), "application/json"
            typed += each_string(body)
        elif raw is not None:
            sent["data"] = raw
            sent["headers"].setdefault("Content-Type", "application/json")
            typed.append(raw.decode("utf-8", "replace"))
        elif form is not None:
            sent["data"], sent["content_type"] = form, "multipart/form-data"
            typed += [str(value) for value in form.values() if isinstance(value, str)]
        answer = self.client.open(path, method=method, **sent)
        reply = Reply(
            answer.status_code,
            tuple((name, value) for name, value in answer.headers.items()),
            answer.get_data(),
            " ".join(typed),
        )
        answer.close()
        self.tally.cases[route] += 1
        self.tally.statuses[reply.status] += 1
        assert reply.status < 500 or reply.status == 501, f"{route}: {reply.status} {reply.body[:500]!r}"
        self.scan(caller, reply, route)
        return reply

    def scan(self, caller: Caller | None, reply: Reply, route: str) -> None:
        """Nothing in the answer may come from what the caller does not see, but what it typed itself."""
        text = reply.body.decode("utf-8", "replace")
        for name, value in reply.headers:
            text += f"\n{name}: {value}"
        forms = {text, html.unescape(text), unquote(text)}
        if "\\u" in text:
            forms.add(re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text))
        visible = self.oracle.visible(caller) if caller is not None else []
        allowed = frozenset().union(*(version.canaries for version in visible)) | canaries_in(reply.typed)
        found = frozenset().union(*(canaries_in(form) for form in forms))
        assert found <= allowed, f"LEAK by {route}: {sorted(found - allowed)} in {text[:2000]}"
        ids = set(_IDS.findall(text)) & self.oracle.known_ids
        own = {passage.id for passage in self.oracle.passages_for(caller)} if caller is not None else set()
        strange = {key for key in ids - own if key not in reply.typed}
        assert not strange, f"LEAK by {route}: ids {sorted(strange)} of unseen passages in {text[:2000]}"

    # the store behind

    def learn(self, tenant: str) -> None:
        """Look into the store: what lies there must be what the oracle says, no more and no less."""
        lists = ("acl", *RESTRICTIONS)
        fields = ["document_id", "content_hash", *lists, "title", "section_heading", "text", "source_type"]
        body = {"query": {"term": {"tenant": tenant}}, "size": 1000, "_source": fields}
        hits = self.cluster.request("POST", f"/{self.cluster.read_alias}/_search", body=body)["hits"]["hits"]
        self.oracle.take(
            (
                (
                    hit["_id"],
                    hit["_source"]["document_id"],
                    hit["_source"]["content_hash"],
                    tuple(frozenset(hit["_source"].get(name) or ()) for name in lists),
                    hit["_source"].get("title", ""),
                    hit["_source"].get("section_heading", ""),
                    hit["_source"]["text"],
                    hit["_source"]["source_type"],
                )
                for hit in hits
            ),
            tenant,
        )


def document_path(document_id: str) -> str:
    """The address of a document."""
    return f"/v1/documents/{quote(document_id, safe='')}"


class _Issuer:
    """An identity provider: publishes its key on loopback, and signs tokens with it."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        published = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self._key.public_key()))
        body = json.dumps({"keys": [{**published, "kid": "leak", "alg": "EdDSA", "use": "sig"}]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    def token(self, **claims: Any) -> str:
        now = int(datetime.now(UTC).timestamp())
        fixed = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 7200}
        return jwt.encode({**fixed, **claims}, self._key, algorithm="EdDSA", headers={"kid": "leak"})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def open_world(opensearch_url: str, redis_url: str, **changed: Any) -> Iterator[World]:
    """The service against these servers; its templates are applied where they are not there yet.

    Feedback waits less long for queries that are not there (another worker's may come late, and there is none here).
    """
    issuer = _Issuer()
    settings = load_settings(
        opensearch_url=opensearch_url,
        redis_url=redis_url,
        opensearch_timeout_s=60,
        timeout_ms=60_000,
        write_timeout_s=120,
        api_key=OPERATOR_KEY,
        keys_secret="a-secret-of-more-than-32-characters-for-keys",
        jwt_jwks_url=issuer.url,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        audit_log="off",
        **changed,
    )
    store = open_store(settings)
    templates.apply(store.cluster, store.capabilities, store.rendered)
    services = Services.open(settings)
    patience, labels.PATIENCE_S = labels.PATIENCE_S, 0.1
    try:
        app = create_app(services)
        yield World(settings, app.test_client(), store.cluster, issuer)
    finally:
        labels.PATIENCE_S = patience
        services.close()
        store.cluster.close()
        issuer.close()
