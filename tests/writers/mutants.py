"""The protocol with one safeguard removed, to show that its removal is noticed. Names are those of the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from app.errors import WriteConflict
from app.ingest import change, protocol, put, sweep
from app.ingest.protocol import Steps, with_access
from app.store import bulk, documents, heads
from app.store.bulk import BulkOutcome, bulk_erase, bulk_index
from app.store.client import Cluster
from app.store.heads import Head

SAFEGUARDS = {
    "cas": "heads are written without `if_seq_no`",
    "fence": "commits, changes and deletions leave other attempts in `pending`",
    "fence-before-erase": "the sweep erases an attempt without taking it out of `pending` first",
    "fresh-token": "an attempt that is repeated keeps its token",
    "erase-by-list": "a writer erases every version but the one in force, instead of those in `garbage`",
    "tombstones": "erasing is a plain delete: a late write of the same id succeeds",
    "versions": "passages get other readers whatever their version",
    "refresh-before-commit": "the head is switched before searches see the new passages",
    "refresh-before-answer": "success is answered before searches have stopped to see what was erased",
    "refresh-before-settle": "a change rewrites only the passages that searches happen to see",
    "unknown": "a write that got no answer is told as refused",
}
"""Not here: ``confirm`` (a node that loses an unacknowledged write takes a cluster of three to show), ``head-check``
(the rounds ask the check itself), and ``tidy-before-unchanged`` (tests/live/test_writers.py)."""


def remove(name: str) -> None:
    """Take the safeguard `name` out of this process; nothing for an empty name. Raises KeyError for an unknown one."""
    if name:
        SAFEGUARDS[name]
        _REMOVALS[name]()


def _set(owner: object, name: str, value: object) -> None:
    getattr(owner, name)  # there must be something to replace
    setattr(owner, name, value)


def _cas() -> None:
    written = heads._lines

    def lines(head: Head) -> bytes:
        action, source, _ = written(head).split(b"\n")
        key = next(iter(orjson.loads(action).values()))["_id"]
        return orjson.dumps({"index": {"_id": key}}) + b"\n" + source + b"\n"

    _set(heads, "_lines", lines)


def _fence() -> None:
    committed = put._committed_head

    def keep_others(attempt: Any) -> Head:
        head: Head = committed(attempt)
        others = tuple(item for item in attempt.known.pending if item != attempt.version)
        return replace(head, pending=others, garbage=tuple(item for item in head.garbage if item not in others))

    _set(put, "_committed_head", keep_others)
    _set(change, "fenced", lambda head: head)


def _fence_before_erase() -> None:
    def sweep_heads(cluster: Cluster, found: Sequence[Head]) -> list[Head]:
        steps = Steps(cluster, patience_s=5.0)
        seized = [item.head for item in steps.write("seize", list(found)) if item.head is not None]
        steps.finish([replace(head, garbage=(*head.garbage, *head.pending)) for head in seized])
        steps.clear(seized)
        return seized

    _set(sweep, "sweep_heads", sweep_heads)


def _fresh_token() -> None:
    _set(put, "make_token", lambda content_hash, rev, nonce, twin: f"{content_hash}~1-{os.getpid():08x}")


def _erase_by_list() -> None:
    def erase(self: Steps, found: Sequence[Head]) -> None:
        self.reach("erase", found)
        self.refresh()
        for head in found:
            query = {"bool": {"filter": [{"term": {"document_id": head.document_id}}]}}
            body = {"size": 500, "query": query, "_source": ["content_hash"]}
            hits = self.cluster.request_all_shards(f"/{self.cluster.read_alias}/_search", body)["hits"]["hits"]
            token = head.version.token if head.version is not None else ""
            gone = [(hit["_index"], hit["_id"]) for hit in hits if hit["_source"]["content_hash"] != token]
            if gone:
                bulk_erase(self.cluster, gone, patience_s=self.patience_s)

    _set(Steps, "erase", erase)


def _versions() -> None:
    def index(cluster: Cluster, passages: Any, **options: Any) -> BulkOutcome:
        if "between" not in options:  # not a staging
            options["versions"] = None
        return bulk_index(cluster, passages, **options)

    _set(protocol, "bulk_index", index)


def _refresh_before_settle() -> None:
    def settle(self: Steps, head: Head) -> None:
        self.reach("settle", [head])
        access = head.access
        if head.version is None or access is None:
            return
        seen = documents.read_version(self.cluster, head)
        bulk_index(
            self.cluster,
            (with_access(passage, access) for passage in seen),
            index=head.version.index,
            versions={head.document_id: head.access_rev},
            patience_s=self.patience_s,
        )

    _set(Steps, "settle", settle)


def _unknown() -> None:
    ended = put._Attempt.end

    def end(self: Any, status: Any, reason: str = "") -> None:
        ended(self, "overtaken" if status == "unknown" else status, reason)

    _set(put._Attempt, "end", end)
    _set(change, "OutcomeUnknown", WriteConflict)


_REMOVALS: dict[str, Callable[[], None]] = {
    "cas": _cas,
    "fence": _fence,
    "fence-before-erase": _fence_before_erase,
    "fresh-token": _fresh_token,
    "erase-by-list": _erase_by_list,
    "tombstones": bulk._ERASE.clear,
    "versions": _versions,
    "refresh-before-commit": lambda: _set(Steps, "reveal", lambda self, found: self.reach("reveal", found)),
    "refresh-before-answer": lambda: _set(Steps, "hide", lambda self, found: self.reach("hide", found)),
    "refresh-before-settle": _refresh_before_settle,
    "unknown": _unknown,
}
