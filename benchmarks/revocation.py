"""How long who was shut out still gets in: `python benchmarks/revocation.py`. Method: revocation.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import harness
import httpx2
import psutil

sys.path.insert(0, str(harness.ROOT))

from app.config import load_settings
from app.gateway.keys import KeyRing
from app.store.client import Cluster

OPERATOR, SECRET = "the-operators-key-of-the-benchmark", "a-secret-of-more-than-32-characters-for-keys"
DOCUMENT, WORD = "revocation/salaries", "quadrature"
PACE_S = 0.03
SETTLE_S = 2.5
"""How long is looked for a late one; more than what is promised."""

Ask = Callable[[httpx2.Client], httpx2.Response]
BODY = {"query": f"{WORD} of salaries"}
TOOL = {"name": "open_page", "arguments": {"document_id": DOCUMENT}}
AGENT = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": TOOL}
KINDS: dict[str, Ask] = {
    "search, cached": lambda client: client.post("/v1/search", json=BODY),
    "search, not cached": lambda client: client.post("/v1/search", json={**BODY, "cache": False}),
    "answer, cached": lambda client: client.post("/v1/answer", json=BODY),
    "GET": lambda client: client.get(f"/v1/documents/{DOCUMENT}"),
    "an agent's open_page": lambda client: client.post(
        "/mcp", json=AGENT, headers={"Accept": "application/json, text/event-stream"}
    ),
}


@dataclass
class Watch:
    """Asks for the document again and again, over a connection of its own; notes when it was shown last."""

    kind: str
    client: httpx2.Client
    shown: list[float] = field(default_factory=list)
    """When requests began that still showed it."""
    hits: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            answer = KINDS[self.kind](self.client)
            if answer.status_code == 200 and WORD in answer.text:
                self.shown.append(began)
                if answer.json().get("cache") in {"exact", "near"}:
                    self.hits += 1
            time.sleep(PACE_S)


@contextmanager
def watching(url: str, key: str, connections: int) -> Iterator[list[Watch]]:
    """Watches of every kind over several connections each, so that every worker is asked."""
    headers = {"Authorization": f"Bearer {key}"}
    watches = [
        Watch(kind, httpx2.Client(base_url=url, headers=headers, timeout=30, trust_env=False))
        for kind in KINDS
        for _ in range(connections)
    ]
    threads = [threading.Thread(target=watch.run) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 30
        while not all(
            len(watch.shown) > 3 and ("cached" not in watch.kind or watch.hits or "not" in watch.kind)
            for watch in watches
        ):
            if time.monotonic() > until:
                raise SystemExit("not everything was shown, or cached, before it was taken away")
            time.sleep(0.05)
        yield watches
    finally:
        for watch in watches:
            watch.stop.set()
        for thread in threads:
            thread.join()
        for watch in watches:
            watch.client.close()


def workers_asked(service_port: int) -> int:
    """How many processes hold connections of ours to the service."""
    owners = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr and connection.laddr.port == service_port
    }
    return len(owners - {None})


def late_ms(watches: list[Watch], since: float) -> dict[str, float]:
    """For each kind, how long after `since` the last request began that still showed the document; 0: none did."""
    found: dict[str, float] = {}
    for watch in watches:
        late = max((began - since for began in watch.shown), default=0.0)
        found[watch.kind] = max(found.get(watch.kind, 0.0), late * 1000)
    return found


@dataclass(frozen=True)
class Round:
    """One change: for each kind the last that was shown (ms) since the change was sent, and since it was answered."""

    since_sent: dict[str, float]
    since_answered: dict[str, float]
    took_ms: float
    workers: int


def round_of(url: str, key: str, connections: int, take: Callable[[], object]) -> Round:
    """One change while everything is being asked."""
    with watching(url, key, connections) as watches:
        workers = workers_asked(int(url.rsplit(":", 1)[1]))
        sent = time.monotonic()
        take()
        answered = time.monotonic()
        time.sleep(SETTLE_S)
        return Round(late_ms(watches, sent), late_ms(watches, answered), (answered - sent) * 1000, workers)


def summary(rounds: list[Round]) -> dict[str, Any]:
    """p50 and the most of each kind, in ms."""

    def of(values: list[float]) -> dict[str, float]:
        return {"p50": round(statistics.median(values), 1), "max": round(max(values), 1)}

    return {
        "the change itself_ms": of([item.took_ms for item in rounds]),
        **{
            kind: {
                "last shown since the change was sent_ms": of([item.since_sent[kind] for item in rounds]),
                "last shown since it was answered_ms": of([item.since_answered[kind] for item in rounds]),
                "rounds with one after the answer": sum(item.since_answered[kind] > 0 for item in rounds),
            }
            for kind in KINDS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=3)
    asked = parser.parse_args()
    environment = {
        "BRAID_API_KEY": OPERATOR,
        "BRAID_KEYS_SECRET": SECRET,
        "BRAID_WORKERS": "2",
        "BRAID_CONCURRENCY": "64",
        "BRAID_AUDIT_LOG": "off",
    }
    figures: dict[str, Any] = {"rounds": asked.rounds, "connections_a_kind": asked.connections, "workers": 2}
    with harness.braid_up(env=environment) as up:
        cluster = Cluster(load_settings(opensearch_url=up["opensearch_url"], keys_secret=SECRET).opensearch)
        ring = KeyRing(load_settings(opensearch_url=up["opensearch_url"], keys_secret=SECRET).access, cluster)
        operator = httpx2.Client(
            base_url=up["url"], headers={"Authorization": f"Bearer {OPERATOR}"}, timeout=60, trust_env=False
        )

        def write() -> None:
            text = f"The {WORD} of salaries is paid on the last day of the month."
            body = {"document_id": DOCUMENT, "title": "Salaries", "text": text, "acl": ["hr"]}
            operator.post("/v1/documents", json=body).raise_for_status()

        def shut_out() -> None:
            operator.patch(f"/v1/documents/{DOCUMENT}", json={"acl": ["legal"]}).raise_for_status()

        def remove() -> None:
            operator.delete(f"/v1/documents/{DOCUMENT}").raise_for_status()

        reached: list[int] = []
        _, reader = ring.create(name="reader", tenant="default", groups=["hr"], roles=["search"])
        for name, take in (("acl changed", shut_out), ("document deleted", remove)):
            rounds = []
            for _ in range(asked.rounds):
                write()
                rounds.append(round_of(up["url"], reader, asked.connections, take))
                operator.delete(f"/v1/documents/{DOCUMENT}")
            figures[name] = summary(rounds)
            reached += [item.workers for item in rounds]
        rounds = []
        write()
        for _ in range(asked.rounds):
            record, key = ring.create(name="reader", tenant="default", groups=["hr"], roles=["search"])
            rounds.append(round_of(up["url"], key, asked.connections, partial(ring.revoke, record.id)))
        figures["key revoked"] = summary(rounds)
        reached += [item.workers for item in rounds]
        figures["workers_asked_in_each_round"] = {"least": min(reached), "most": max(reached)}
        operator.close()
        cluster.close()
    harness.write_result("revocation", "benchmarks/revocation.md", figures)


if __name__ == "__main__":
    main()
