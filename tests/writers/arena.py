"""An index of its own on a real node, and the writers that meet there, each behind a gate, each moved step by step."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.config import Settings, load_settings
from app.ingest import single
from app.ingest.records import ready_document
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.heads import Head, ensure_index, read_heads
from app.store.rendering import compose, render
from tests.writers.encoder import DIMENSION, WordEncoder
from tests.writers.gate import Fault, Gate
from tests.writers.oracle import Hit, Op

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 90
_SENTENCES = 60
"""Of six tokens each, and a passage has some hundred: each document has a few."""


def text_of(content: str) -> str:
    """The text of a content: some passages of sentences."""
    return " ".join(f"{content} sentence {n} says little." for n in range(_SENTENCES))


class Actor:
    """One writer: a process that waits before each step until `go`."""

    def __init__(self, op: Op, gate: Gate, events: queue.Queue[dict[str, Any]]) -> None:
        self.op = op
        self.gate = gate
        self.events = events
        self.pid = 0
        self.socket: socket.socket | None = None
        self.step = ""
        self.path: list[str] = []
        """The steps that it has come to."""
        self.answer = ""
        self.stalled = False

    @property
    def over(self) -> bool:
        return bool(self.answer)

    def go(self) -> None:
        """Let it make its step, and wait until it comes to the next one, has ended or hangs in a request."""
        assert self.socket is not None
        self.socket.sendall(b"go\n")
        self.arrive()

    def arrive(self) -> None:
        """Wait for the next thing that it does."""
        event = self.events.get(timeout=_PATIENCE_S)
        if "at" in event:
            self.step = event["at"]
            self.path.append(self.step)
        elif "done" in event:
            self.answer = event["done"]["status"]
            self.step = event["done"].get("detail", "")
        elif "stalled" in event:
            self.stalled = True
        else:
            raise AssertionError(f"{self.op}: the process of this writer ended on its own ({event})")

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.answer = "killed"


class Arena:
    """The index, and the process from which writers are forked."""

    def __init__(self, url: str, *, without: str = "") -> None:
        self._without = without
        self._url = url
        self.settings: Settings = load_settings(opensearch_url=url, passage_tokens=100)
        self.name = f"writers-{secrets.token_hex(4)}"
        self.cluster = Cluster(self.settings.opensearch).within(self.name)
        self._encoder = WordEncoder()

    def __enter__(self) -> Self:
        body = compose(render(self.settings, "faiss-exact", DIMENSION))
        del body["settings"]["index"]["default_pipeline"]
        # refreshed only when somebody asks for it: a refresh that is missing shows
        body["settings"]["index"] |= {"refresh_interval": "-1", "gc_deletes": "15m"}
        aliases = {self.name: {"is_write_index": True}}
        self.cluster.request("PUT", f"/{self.name}-000001", body={**body, "aliases": aliases})
        ensure_index(self.cluster)
        self._folder = tempfile.TemporaryDirectory(prefix="braid-writers-")
        self._listener = socket.socket(socket.AF_UNIX)
        address = f"{self._folder.name}/socket"
        self._listener.bind(address)
        self._listener.listen()
        self._expected: dict[str, Actor] = {}
        threading.Thread(target=self._accept, daemon=True).start()
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.writers.driver", address]
        self._driver = subprocess.Popen(command, stdin=subprocess.PIPE, env=env, cwd=ROOT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._driver.stdin is not None
        self._driver.stdin.close()
        self._driver.wait(30)
        self._listener.close()
        self._folder.cleanup()
        self.cluster.request("DELETE", f"/{self.name}-000001,{self.cluster.heads_index}")
        self.cluster.close()

    def start(self, op: Op, document_id: str, faults: tuple[Fault, ...], *, free: bool = False) -> Actor:
        """Start a writer; it waits before its first step."""
        events: queue.Queue[dict[str, Any]] = queue.Queue()
        gate = Gate(self._url, faults, lambda: events.put({"stalled": True}))
        actor = Actor(op, gate, events)
        name = secrets.token_hex(4)
        self._expected[name] = actor
        order: dict[str, Any] = {
            "name": name,
            "op": op.kind,
            "url": gate.url,
            "index": self.name,
            "tenant": "writers",
            "source_id": document_id,
            "document_id": document_id,
            "acl": op.acl,
            "text": text_of(op.content),
            "without": self._without,
            "patience_s": 1.0 if any(fault.how == "late-silent" for fault in faults) else None,
            "free": free,
        }
        if op.kind in ("ingest", "sync"):
            order["path"] = self._file(op, document_id, name)
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps(order).encode() + b"\n")
        self._driver.stdin.flush()
        if not free:
            actor.arrive()
        return actor

    def _file(self, op: Op, document_id: str, name: str) -> str:
        row = (
            {"document_id": f"{document_id}-keeper", "text": "This one stays."}
            if op.kind == "sync"
            else {"document_id": document_id, "text": text_of(op.content), "uri": ""}
        )
        path = Path(self._folder.name) / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        return str(path)

    def prepare(self, document_id: str, start: str) -> Head:
        """Store the document as the round finds it: ``absent``, ``public``, ``hr`` or ``deleted`` (of hr)."""
        if start != "absent":
            fields: dict[str, Any] = {"document_id": document_id, "text": text_of("v0")}
            if start != "public":
                fields["acl"] = ["hr"]
            self.post(fields, document_id)
        if start == "deleted":
            single.delete_document(self.cluster, Scope("writers"), document_id)
        return self.head(document_id)

    def post(self, fields: dict[str, Any], source_id: str) -> None:
        """Store a document from here."""
        document = ready_document(fields, tenant="writers", source_id=source_id)
        single.ingest_document(document, settings=self.settings, cluster=self.cluster, encoder=self._encoder)

    def head(self, document_id: str) -> Head:
        """The head as it is now."""
        return read_heads(self.cluster, [Head("writers", document_id)]).popitem()[1]

    def stored(self, head: Head) -> int:
        """How many of the passages in force there are, by a realtime get."""
        if head.version is None or not head.version.passages:
            return 0
        body = {"ids": head.version.ids(head)}
        path, params = f"/{head.version.index}/_mget", {"_source": "false"}
        docs = self.cluster.request("POST", path, params=params, body=body)["docs"]
        return sum(bool(item.get("found")) for item in docs)

    def hits(self, document_id: str, filters: list[dict[str, Any]] | None = None) -> list[Hit]:
        """What a native search shows of the document."""
        query = {"bool": {"filter": [{"term": {"document_id": document_id}}, *(filters or [])]}}
        fields = ["content_hash", "position", "acl"]
        body = {"size": 500, "version": True, "query": query, "_source": fields}
        found = self.cluster.request_all_shards(f"/{self.name}-000001/_search", body)["hits"]["hits"]
        return [
            Hit(
                hit["_source"]["content_hash"],
                hit["_source"]["position"],
                tuple(hit["_source"]["acl"]),
                hit["_version"],
            )
            for hit in found
        ]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._listen, args=(caller,), daemon=True).start()

    def _listen(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError), caller, caller.makefile("rb") as lines:
            hello = json.loads(lines.readline())
            actor = self._expected.pop(hello["name"])
            actor.pid, actor.socket = hello["pid"], caller
            for line in lines:
                actor.events.put(json.loads(line))
            actor.events.put({"ended": True})
