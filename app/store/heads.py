"""Heads: one small record per document with its live version and its readers.

A head is written only with the sequence number of the read behind the decision (compare and set), so that writers of
one document take turns without a lock. Passages are shown only if the head names their version. `ingest.protocol`
determines the order of writes; docs/write-protocol.md describes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from app.access import Access
from app.errors import StoreError, StoreNotReady, StoreUnavailable
from app.passage import passage_id
from app.store import hidden
from app.store.bulk import raise_if_blocked
from app.store.client import Cluster, StoreRequestError
from app.store.paging import scan
from app.store.rendering import HEADS_TEMPLATE

_PAGE = 200
"""Heads per request: some 100 kB."""
_OPEN_PAGE = 500
_TIMEOUT_S = 10.0
SHOWING_TIMEOUT_S = 5.0
"""Seconds that a reader waits for heads: what they don't confirm is not shown, and the caller hears of it soon. Enough
for each of three nodes to be asked, the first for 1.5 s."""
_CONFLICT = 409
_RETRIED = frozenset({429, 502, 503, 504})
_PARAMS = {"timeout": "5s"}
"""Time that OpenSearch waits for a missing shard; we retry instead."""


@dataclass(frozen=True, slots=True)
class Version:
    """An attempt to write the content of a document, live or not."""

    token: str
    passages: int
    index: str
    """The physical index of its passages."""

    def ids(self, head: Head) -> list[str]:
        """Return the ids of its passages, in order."""
        return [passage_id(head.tenant, head.document_id, self.token, n) for n in range(self.passages)]


@dataclass(frozen=True, slots=True)
class Head:
    """State of one document. `seq_no` and `primary_term` identify the revision that was read; -1: it is new.

    `version` is None if the document is deleted, or was never committed. `access` also applies while it is deleted;
    None: never set. `twin` identifies the writer of a neighbour: a document under the id of another one that the writer
    can't see; `twins` of the other head lists those.
    """

    tenant: str
    document_id: str
    twin: str = ""
    source_id: str = ""
    rev: int = 0
    """Increases with each write."""
    version: Version | None = None
    content_hash: str = ""
    access: Access | None = None
    access_rev: int = 0
    """`rev` of the last change of readers that was not part of a put."""
    by: str = ""
    """Name of the last change or deletion, so that its writer can recognise an unacknowledged write."""
    pending: tuple[Version, ...] = ()
    """Attempts that may still be committed."""
    garbage: tuple[Version, ...] = ()
    """Attempts that can't become live any more, and may still have passages."""
    unsettled: bool = False
    """Passages may still have other readers than `access`."""
    twins: tuple[str, ...] = ()
    seq_no: int = field(default=-1, compare=False)
    primary_term: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        return head_key(self.tenant, self.document_id, self.twin)

    @property
    def exists(self) -> bool:
        return self.seq_no >= 0

    @property
    def open(self) -> bool:
        """Return whether there is unfinished work, for its writer or for a sweep."""
        return bool(self.pending or self.garbage or self.unsettled)

    @property
    def untidy(self) -> bool:
        """Return whether searches may still show passages that are not live."""
        return bool(self.garbage or self.unsettled)

    def readable(self, principals: frozenset[str] | None) -> bool:
        """Return whether the document is readable, or would be if it existed."""
        return self.access is None or self.access.allows(principals)


def head_key(tenant: str, document_id: str, twin: str = "") -> str:
    """Return the `_id` of a head (64 hex digits)."""
    parts = (tenant, document_id, twin) if twin else (tenant, document_id)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def twin_name(subject: str) -> str:
    """Return a pseudonym of a writer for heads and tokens (16 hex digits)."""
    return hashlib.sha256(subject.encode()).hexdigest()[:16]


def make_token(content_hash: str, rev: int, nonce: str, twin: str) -> str:
    """Return the name of an attempt: content, revision of the intent, random bits, and the twin of its head."""
    return f"{content_hash}~{rev}-{nonce}" + (f"~{twin}" if twin else "")


def twin_of(token: str) -> str:
    """Return the twin of a version's head; empty for the document's own head."""
    return token.split("~")[2] if token.count("~") == 2 else ""


def read_heads(cluster: Cluster, wanted: Iterable[Head], *, timeout_s: float = _TIMEOUT_S) -> dict[str, Head]:
    """Return the current heads by key, in real time; the given (empty) head if there is none.

    Raises:
        StoreNotReady: the index of heads is missing.
        StoreUnavailable, StoreError.
    """
    asked = {head.key: Head(head.tenant, head.document_id, head.twin) for head in wanted}
    keys = list(asked)
    found: dict[str, Head] = {}
    for start in range(0, len(keys), _PAGE):
        page = keys[start : start + _PAGE]
        answer = cluster.request("POST", f"/{cluster.heads_index}/_mget", body={"ids": page}, timeout_s=timeout_s)
        for key, item in zip(page, answer["docs"], strict=True):
            if "error" in item:
                kind = item["error"].get("type", "")
                if kind == "index_not_found_exception":
                    raise _missing(cluster)
                raise StoreUnavailable(f"OpenSearch could not read the heads of documents ({kind}): try again")
            found[key] = _head(item) if item.get("found") else asked[key]
    return found


@dataclass(frozen=True, slots=True)
class HeadWrite:
    """Outcome of writing one head. `head` is the stored one, if it was stored.

    ``conflict``: another writer changed it since it was read. ``unknown``: no answer, or an ambiguous one.
    """

    outcome: Literal["stored", "conflict", "unknown"]
    head: Head | None = None


def write_heads(cluster: Cluster, heads: Sequence[Head], *, timeout_s: float = _TIMEOUT_S) -> list[HeadWrite]:
    """Write each head if it is unchanged since it was read; increments the revision.

    Raises:
        StoreError: the cluster rejects writes (disk full, read-only), or the index of heads is missing.
    """
    written: list[HeadWrite] = []
    for start in range(0, len(heads), _PAGE):
        written += _write_page(cluster, heads[start : start + _PAGE], timeout_s)
    return written


def _write_page(cluster: Cluster, heads: Sequence[Head], timeout_s: float) -> list[HeadWrite]:
    raised = [replace(head, rev=head.rev + 1) for head in heads]
    body = b"".join(_lines(head) for head in raised)
    try:
        answer = cluster.request(
            "POST", f"/{cluster.heads_index}/_bulk", params=_PARAMS, body=body, timeout_s=timeout_s
        )
    except StoreRequestError as error:
        if error.error_type == "index_not_found_exception":
            raise _missing(cluster) from error
        raise_if_blocked(error.error_type, error.status_code, error.detail)
        if error.status_code in _RETRIED:
            return [HeadWrite("unknown")] * len(heads)
        raise
    except StoreUnavailable:
        return [HeadWrite("unknown")] * len(heads)
    return [
        _outcome(cluster, head, next(iter(item.values()))) for head, item in zip(raised, answer["items"], strict=True)
    ]


def _outcome(cluster: Cluster, head: Head, item: dict[str, Any]) -> HeadWrite:
    status = int(item["status"])
    if status < 300:
        stored = replace(head, seq_no=int(item["_seq_no"]), primary_term=int(item["_primary_term"]))
        return HeadWrite("stored", stored)
    if status == _CONFLICT:
        return HeadWrite("conflict")
    kind = str(item["error"].get("type"))
    if kind == "index_not_found_exception":
        raise _missing(cluster)
    raise_if_blocked(kind, status, kind)
    if status in _RETRIED:
        return HeadWrite("unknown")
    raise StoreError(f"OpenSearch rejected the head of a document ({kind}): run `braid doctor`")


def find_open(cluster: Cluster, *, timeout_s: float = _TIMEOUT_S) -> Iterator[Head]:
    """Yield heads with unfinished work, of all tenants, as searches see them: at most a page."""
    body = {
        "size": _OPEN_PAGE,
        "query": {"term": {"open": True}},
        "sort": [{"updated_at": "asc"}],
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }
    params = {"allow_partial_search_results": "false"}
    found = cluster.request("POST", f"/{cluster.heads_index}/_search", params=params, body=body, timeout_s=timeout_s)
    return (_head(hit) for hit in found["hits"]["hits"])


def in_force(cluster: Cluster, *, timeout_s: float = _TIMEOUT_S) -> Iterator[list[Head]]:
    """Yield all heads with a live version, a page at a time. Raises StoreError."""
    for page in all_heads(cluster, timeout_s=timeout_s):
        yield [head for head in page if head.version is not None]


def all_heads(cluster: Cluster, *, timeout_s: float = _TIMEOUT_S) -> Iterator[list[Head]]:
    """Yield all heads, a page at a time. Raises StoreError."""
    cluster.request("POST", f"/{cluster.heads_index}/_refresh", timeout_s=timeout_s)
    body = {"size": _OPEN_PAGE, "query": {"match_all": {}}, "seq_no_primary_term": True}
    for hits in scan(cluster, cluster.heads_index, body, timeout_s=timeout_s):
        yield [_head(hit) for hit in hits]


def forget_deleted(cluster: Cluster, *, days: int, timeout_s: float = _TIMEOUT_S) -> int:
    """Remove up to a page of heads of documents deleted `days` ago; return their number. Raises StoreError."""
    body = {
        "size": _OPEN_PAGE,
        "query": {
            "bool": {
                "filter": [
                    {"term": {"deleted": True}},
                    {"term": {"open": False}},
                    {"range": {"updated_at": {"lt": f"now-{days}d"}}},
                ]
            }
        },
        "_source": False,
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }
    found = cluster.request("POST", f"/{cluster.heads_index}/_search", body=body, timeout_s=timeout_s)
    lines = [
        orjson.dumps(
            {"delete": {"_id": hit["_id"], "if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}}
        )
        for hit in found["hits"]["hits"]
    ]
    if not lines:
        return 0
    answer = cluster.request(
        "POST", f"/{cluster.heads_index}/_bulk", body=b"\n".join(lines) + b"\n", timeout_s=timeout_s
    )
    return sum(int(item["delete"]["status"]) == 200 for item in answer["items"])


def ensure_index(cluster: Cluster) -> None:
    """Create the index of heads if it is missing. Raises StoreError."""
    hidden.ensure_index(cluster, HEADS_TEMPLATE, cluster.heads_index)


def has_fewer_copies(settings: Mapping[str, Any]) -> bool:
    """Return whether an index with these (flat) settings was made before three nodes had a copy each."""
    return settings.get("index.auto_expand_replicas") == "0-1"


def add_copies(cluster: Cluster) -> None:
    """Give an index of heads the copies that a new one has. Raises StoreError."""
    cluster.request("PUT", f"/{cluster.heads_index}/_settings", body={"index.auto_expand_replicas": "0-2"})


def _missing(cluster: Cluster) -> StoreNotReady:
    return StoreNotReady(
        f"index {cluster.heads_index} is missing: run `braid templates apply` (or `braid heads build` if it was lost)"
    )


def _lines(head: Head) -> bytes:
    action: dict[str, Any] = {"_id": head.key}
    if head.exists:
        action |= {"if_seq_no": head.seq_no, "if_primary_term": head.primary_term}
    state: dict[str, Any] = {
        "rev": head.rev,
        "version": _plain(head.version) if head.version is not None else None,
        "content_hash": head.content_hash,
        "access": head.access.fields() if head.access is not None else None,
        "access_rev": head.access_rev,
        "by": head.by,
        "pending": [_plain(version) for version in head.pending],
        "garbage": [_plain(version) for version in head.garbage],
        "unsettled": head.unsettled,
        "twin": head.twin,
        "twins": head.twins,
    }
    source = {
        "tenant": head.tenant,
        "document_id": head.document_id,
        "source_id": head.source_id,
        "open": head.open,
        "deleted": head.version is None and not head.twins,
        "updated_at": int(time.time() * 1000),
        "state": {name: value for name, value in state.items() if value},
    }
    verb = "index" if head.exists else "create"
    return orjson.dumps({verb: action}) + b"\n" + orjson.dumps(source) + b"\n"


def _plain(version: Version) -> list[str | int]:
    return [version.token, version.passages, version.index]


def _version(stored: Sequence[Any]) -> Version:
    token, passages, index = stored
    return Version(token, int(passages), index)


def _head(item: dict[str, Any]) -> Head:
    source = item["_source"]
    state = source["state"]
    version, access = state.get("version"), state.get("access")
    return Head(
        tenant=source["tenant"],
        document_id=source["document_id"],
        twin=state.get("twin", ""),
        source_id=source.get("source_id", ""),
        rev=int(state["rev"]),
        version=_version(version) if version else None,
        content_hash=state.get("content_hash", ""),
        access=Access.of(access) if access is not None else None,
        access_rev=int(state.get("access_rev", 0)),
        by=state.get("by", ""),
        pending=tuple(_version(item) for item in state.get("pending", ())),
        garbage=tuple(_version(item) for item in state.get("garbage", ())),
        unsettled=bool(state.get("unsettled")),
        twins=tuple(state.get("twins", ())),
        seq_no=int(item["_seq_no"]),
        primary_term=int(item["_primary_term"]),
    )
