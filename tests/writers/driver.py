"""Writers as processes of their own that stop before each step: `python -m tests.writers.driver SOCKET`.

The process reads orders, a JSON object a line, and forks a child for each, so that a writer starts at once and may be
killed. A child connects to SOCKET and says who it is; then it tells of each step, and waits for the word to go on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config import Settings, load_settings
from app.errors import DocumentRejected, NotFound, OutcomeUnknown, StoreError, StoreUnavailable, WriteConflict
from app.ingest import protocol, single, sweep
from app.ingest.records import ready_document
from app.ingest.run import IngestOptions, ingest_paths
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.heads import Head
from tests.writers.encoder import WordEncoder
from tests.writers.mutants import remove

Answer = dict[str, Any]


class _Channel:
    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def say(self, message: Answer) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def stop_before(self, step: str, heads: Sequence[Head]) -> None:
        """Wait until the word comes to go on; the other side may kill us instead."""
        with self._lock:  # an ingest has threads
            self.say({"at": step, "keys": [head.key for head in heads]})
            if not self._lines.readline():
                os._exit(1)  # nobody is there any more


def act(order: Answer, cluster: Cluster, settings: Settings) -> Answer:
    """Carry out one order with the code of the service, or of `braid ingest`, and say how it was answered."""
    op, scope = order["op"], Scope(order["tenant"], subject=None)
    try:
        if op == "post":
            fields = {name: order[name] for name in ("document_id", "text", "acl") if order.get(name) is not None}
            document = ready_document(fields, tenant=order["tenant"], source_id=order["source_id"])
            done = single.ingest_document(document, settings=settings, cluster=cluster, encoder=WordEncoder())
        elif op == "patch":
            done = single.change_readers(cluster, scope, order["document_id"], {"acl": tuple(order["acl"])})
        elif op == "delete":
            done = single.delete_document(cluster, scope, order["document_id"])
            return {"status": "deleted"}
        elif op == "sweep":
            head = protocol.Steps(cluster).read([Head(order["tenant"], order["document_id"])]).popitem()[1]
            return {"status": f"swept {len(sweep.sweep_heads(cluster, [head] if head.open else []))}"}
        else:
            return _ingest(order, cluster, settings)
    except NotFound:
        return {"status": "missing"}
    except WriteConflict:
        return {"status": "overtaken"}
    except OutcomeUnknown:
        return {"status": "unknown"}
    except StoreUnavailable as error:
        return {"status": "unavailable", "detail": error.detail}
    except (DocumentRejected, StoreError) as error:
        return {"status": "failed", "detail": error.detail}
    return {"status": done.status}


def _ingest(order: Answer, cluster: Cluster, settings: Settings) -> Answer:
    options = IngestOptions(
        source_id=order["source_id"],
        tenant=order["tenant"],
        acl=tuple(order["acl"]) if order.get("acl") is not None else None,
        sync=order["op"] == "sync",
        tagging=False,
        patience_s=5.0,
        parse_workers=1,
    )
    report = ingest_paths(
        [Path(order["path"])], settings=settings, cluster=cluster, encoder=WordEncoder(), options=options
    )
    if order["op"] == "sync":
        return {"status": "deleted" if report.deleted else "missing"}
    if report.failed:
        return {"status": report.failed[0].reason, "detail": report.failed[0].detail}
    return {"status": "created" if report.new else "updated" if report.changed else "unchanged"}


def _child(order: Answer, path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel = _Channel(path)
    channel.say({"name": order["name"], "pid": os.getpid()})
    settings = load_settings(opensearch_url=order["url"], passage_tokens=100, ingest_parse_timeout_s=20)
    cluster = Cluster(settings.opensearch).within(order["index"])
    if patience := order.get("patience_s"):
        single._PATIENCE_S = patience
    remove(order.get("without", ""))
    if not order.get("free"):
        protocol.observe = channel.stop_before
    channel.say({"done": act(order, cluster, settings)})


def main() -> None:
    """Fork for each order until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for children
    for line in sys.stdin:
        if os.fork() == 0:
            _child(json.loads(line), sys.argv[1])
            sys.stdout.flush()
            os._exit(0)


if __name__ == "__main__":
    main()
