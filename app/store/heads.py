"""Heads: one small record a document that says which version is in force and who may read it.

A head is written only with the sequence number of the read that decided (compare and set), so that writers of one
document take turns without a lock. Passages are shown only where the head names their version. The order of writes is
`ingest.protocol`'s affair; docs/write-protocol.md describes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from app.access import Access
from app.errors import StoreError, StoreNotReady, StoreUnavailable
from app.passage import passage_id
from app.store import hidden
from app.store.bulk import refuse_if_blocked
from app.store.client import Cluster, StoreRequestError
from app.store.rendering import HEADS_TEMPLATE

_PAGE = 200
"""Heads in one request: some 100 kB."""
_OPEN_PAGE = 500
_SCROLL = "5m"
_TIMEOUT_S = 10.0
_CONFLICT = 409
_RETRIED = frozenset({429, 502, 503, 504})
_PARAMS = {"timeout": "5s"}
"""How long OpenSearch waits for a shard that is not there; our patience is spent by asking again."""


@dataclass(frozen=True, slots=True)
class Version:
    """An attempt to write the content of a document, in force or not."""

    token: str
    passages: int
    index: str
    """The physical index that holds its passages."""

    def ids(self, head: Head) -> list[str]:
        """The ids of its passages, in their order."""
        return [passage_id(head.tenant, head.document_id, self.token, n) for n in range(self.passages)]


@dataclass(frozen=True, slots=True)
class Head:
    """The state of one document. `seq_no` and `primary_term` say where in its history it was read; -1: it is new.

    `version` None: deleted, or never committed. `access` is in force also while the document is deleted; None: nobody
    has ever decided. `twin` names the writer of a neighbour: a document under an id that is taken by one which that
    writer can't see; `twins` of the other head lists those.
    """

    tenant: str
    document_id: str
    twin: str = ""
    source_id: str = ""
    rev: int = 0
    """Rises with each write."""
    version: Version | None = None
    content_hash: str = ""
    access: Access | None = None
    access_rev: int = 0
    """`rev` of the last change of readers that was not part of a put."""
    by: str = ""
    """Names the last change or deletion, so that its writer can tell whether a write without an answer went in."""
    pending: tuple[Version, ...] = ()
    """Attempts that may still be committed."""
    garbage: tuple[Version, ...] = ()
    """Attempts that can't be in force any more, and may still have passages."""
    unsettled: bool = False
    """Passages may still carry other readers than `access`."""
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
        """Whether something is still to be tidied up, by its writer or by a sweep."""
        return bool(self.pending or self.garbage or self.unsettled)

    @property
    def untidy(self) -> bool:
        """Whether searches may still show what is not in force."""
        return bool(self.garbage or self.unsettled)

    def readable(self, principals: frozenset[str] | None) -> bool:
        """Whether the document may be read, or could be if it were there."""
        return self.access is None or self.access.allows(principals)


def head_key(tenant: str, document_id: str, twin: str = "") -> str:
    """The `_id` of a head (64 hex digits)."""
    parts = (tenant, document_id, twin) if twin else (tenant, document_id)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def twin_name(subject: str) -> str:
    """Names a writer in heads and tokens (16 hex digits), without saying who it is."""
    return hashlib.sha256(subject.encode()).hexdigest()[:16]


def make_token(content_hash: str, rev: int, nonce: str, twin: str) -> str:
    """The name of an attempt: content, revision of the intent, random bits, and the twin whose head it is under."""
    return f"{content_hash}~{rev}-{nonce}" + (f"~{twin}" if twin else "")


def twin_of(token: str) -> str:
    """The twin that a version's head belongs to; empty for the document's own head."""
    return token.split("~")[2] if token.count("~") == 2 else ""


def read_heads(cluster: Cluster, wanted: Iterable[Head], *, timeout_s: float = _TIMEOUT_S) -> dict[str, Head]:
    """The heads as they are now, not as searches see them, by key. Where there is none, the given (empty) one.

    Raises:
        StoreNotReady: there is no index of heads.
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
                raise StoreUnavailable(f"OpenSearch could not read the heads of documents ({kind}); ask again")
            found[key] = _head(item) if item.get("found") else asked[key]
    return found


@dataclass(frozen=True, slots=True)
class HeadWrite:
    """What became of the write of one head. `head` as it is stored now, where it went in.

    ``conflict``: somebody else wrote it since it was read. ``unknown``: no answer, or one that does not say.
    """

    outcome: Literal["stored", "conflict", "unknown"]
    head: Head | None = None


def write_heads(cluster: Cluster, heads: Sequence[Head], *, timeout_s: float = _TIMEOUT_S) -> list[HeadWrite]:
    """Write each head if it is still as it was read; the revision is raised here.

    Raises:
        StoreError: the cluster takes no writes (disk full, read-only), or there is no index of heads.
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
        refuse_if_blocked(error.error_type, error.status_code, error.detail)
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
    refuse_if_blocked(kind, status, kind)
    if status in _RETRIED:
        return HeadWrite("unknown")
    raise StoreError(f"OpenSearch refused the head of a document ({kind}): run `braid doctor`")


def find_open(cluster: Cluster, *, timeout_s: float = _TIMEOUT_S) -> Iterator[Head]:
    """Heads with something to tidy up, of all tenants, as searches see them: at most a page."""
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
    """All heads with a version in force, a page at a time. Raises StoreError."""
    cluster.request("POST", f"/{cluster.heads_index}/_refresh", timeout_s=timeout_s)
    body = {
        "size": _OPEN_PAGE,
        "query": {"match_all": {}},
        "sort": ["_doc"],
        "seq_no_primary_term": True,
    }
    params = {"scroll": _SCROLL, "allow_partial_search_results": "false"}
    found = cluster.request("POST", f"/{cluster.heads_index}/_search", params=params, body=body, timeout_s=timeout_s)
    try:
        while hits := found["hits"]["hits"]:
            yield [head for head in map(_head, hits) if head.version is not None]
            more = {"scroll": _SCROLL, "scroll_id": found["_scroll_id"]}
            found = cluster.request("POST", "/_search/scroll", body=more, timeout_s=timeout_s)
    finally:
        cluster.request("DELETE", "/_search/scroll", body={"scroll_id": [found["_scroll_id"]]}, timeout_s=timeout_s)


def forget_deleted(cluster: Cluster, *, days: int, timeout_s: float = _TIMEOUT_S) -> int:
    """Remove heads of documents that were deleted so long ago, a page of them at most; how many. Raises StoreError."""
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
    """Make the index of heads where there is none. Raises StoreError."""
    hidden.ensure_index(cluster, HEADS_TEMPLATE, cluster.heads_index)


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
