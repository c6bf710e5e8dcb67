"""Audit of heads: compares passages with the heads of their documents, after a restore or before an index is replaced.

Ordinary writes do not need it. It finds passages that can never become live (written after OpenSearch forgot that they
were erased, or by other clients), live versions that lack passages, and documents without a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from app.access import ACCESS_FIELDS, Access
from app.store.client import Cluster
from app.store.heads import Head, Version, in_force, read_heads, twin_of, write_heads
from app.store.paging import distinct

_PAGE = 500
_INDEXES = 100


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """Stored passages of one token of one document in one index."""

    tenant: str
    document_id: str
    version: Version
    """`passages` as they would be without gaps: the highest position plus one."""
    count: int
    newest_ms: float
    access: Access
    source_id: str

    @property
    def complete(self) -> bool:
        return self.count == self.version.passages


@dataclass(slots=True)
class Audit:
    """Result of the audit. Documents are pairs of (tenant, document id)."""

    documents: int = 0
    strays: list[Head] = field(default_factory=list)
    """Heads, with stored versions in `garbage` that can't become live."""
    lacking: list[Head] = field(default_factory=list)
    """Heads whose live version lacks some or all passages: to be disowned, and ingested again."""
    headless: list[tuple[str, str]] = field(default_factory=list)
    """Documents without a head, which are not shown."""

    @property
    def incomplete(self) -> list[tuple[str, str]]:
        """The documents that lack passages."""
        return [(head.tenant, head.document_id) for head in self.lacking]


def audit(cluster: Cluster) -> Audit:
    """Compare everything that searches see with the current heads. Changes nothing.

    Concurrent writes may be reported as incomplete: run it while ingest rests, or twice.

    Raises:
        StoreError.
    """
    found = Audit()
    for batch in _batches(cluster):
        heads = read_heads(cluster, {head.key: head for head in map(_empty_head, _flat(batch))}.values())
        for versions in batch:
            found.documents += 1
            for head, stored in _by_head(versions):
                _compare(found, heads[head.key], stored)
    for page in in_force(cluster):
        found.lacking += _find_incomplete(cluster, page)
    return found


def disown(cluster: Cluster, heads: Sequence[Head]) -> int:
    """Let the next ingest write these documents again; return their number.

    Otherwise their content would count as stored and be skipped as unchanged. Existing passages stay visible until
    then.

    Raises:
        StoreError.
    """
    return sum(item.outcome == "stored" for item in write_heads(cluster, [replace(h, content_hash="") for h in heads]))


def build(cluster: Cluster, index: str | None = None) -> int:
    """Create heads for documents without one, from their newest complete version; return their number.

    Other versions become garbage, which the next sweep erases. Existing heads stay unchanged.

    Args:
        index: index of the passages, before an alias points to it; None: everything that searches see.

    Raises:
        StoreError.
    """
    built = 0
    for batch in _batches(cluster, index):
        own = [Head(versions[0].tenant, versions[0].document_id) for versions in batch]
        wanted = {head.key: head for head in (*own, *map(_empty_head, _flat(batch)))}
        heads = read_heads(cluster, wanted.values())
        new: dict[str, Head] = {}
        lists: dict[str, Head] = {}
        for document, versions in zip(own, batch, strict=True):
            for empty, stored in _by_head(versions):
                if not heads[empty.key].exists and (head := _build_head(empty, stored)) is not None:
                    new[head.key] = head
            there = new.pop(document.key, None) or heads[document.key]
            twins = {twin for item in versions if (twin := twin_of(item.version.token))} - set(there.twins)
            if twins:  # otherwise only searches would find them
                there = replace(there, twins=(*there.twins, *sorted(twins)))
            if there != heads[document.key]:
                lists[document.key] = there
        # neighbours last: one that has a head is assumed to be listed
        for heads_of_batch in (lists, new):
            written = write_heads(cluster, list(heads_of_batch.values()))
            built += sum(
                item.head is not None and not heads[item.head.key].exists and item.head.version is not None
                for item in written
            )
    return built


def _compare(found: Audit, head: Head, stored: Sequence[StoredVersion]) -> None:
    name = (head.tenant, head.document_id)
    if not head.exists:
        found.headless.append(name)
        return
    known = {item.token for item in (head.version, *head.pending, *head.garbage) if item is not None}
    strays = tuple(item.version for item in stored if item.version.token not in known)
    if strays:
        found.strays.append(replace(head, garbage=(*head.garbage, *strays)))


def _find_incomplete(cluster: Cluster, heads: Sequence[Head]) -> list[Head]:
    """Return the heads whose live version is incomplete; read again, without those replaced meanwhile."""
    if not heads:
        return []
    tokens = [head.version.token for head in heads if head.version is not None]
    names = {"terms": {"field": "content_hash", "size": len(tokens)}}
    indexes = {"indexes": {"terms": {"field": "_index", "size": _INDEXES}}}
    body = {
        "size": 0,
        "query": {"bool": {"filter": [{"terms": {"content_hash": tokens}}]}},
        "aggs": {"versions": {**names, "aggs": indexes}},
    }
    answer = cluster.request_all_shards(f"/{cluster.read_alias}/_search", body, timeout_s=60.0)
    counts = {
        (bucket["key"], item["key"]): int(item["doc_count"])
        for bucket in answer["aggregations"]["versions"]["buckets"]
        for item in bucket["indexes"]["buckets"]
    }
    short = [
        head for head in heads if (found := head.version) and counts.get((found.token, found.index)) != found.passages
    ]
    now = read_heads(cluster, short)
    return [now[head.key] for head in short if now[head.key].version == head.version]


def _build_head(empty: Head, stored: Sequence[StoredVersion]) -> Head | None:
    complete = sorted((item for item in stored if item.complete), key=lambda item: item.newest_ms)
    if not complete:
        return None
    chosen = complete[-1]
    return replace(
        empty,
        source_id=chosen.source_id,
        version=chosen.version,
        content_hash=chosen.version.token.partition("~")[0],
        access=chosen.access,
        garbage=tuple(item.version for item in stored if item is not chosen),
    )


def _empty_head(stored: StoredVersion) -> Head:
    return Head(stored.tenant, stored.document_id, twin_of(stored.version.token))


def _by_head(versions: Sequence[StoredVersion]) -> Iterator[tuple[Head, list[StoredVersion]]]:
    ordered = sorted(versions, key=lambda item: twin_of(item.version.token))
    for _, group in groupby(ordered, key=lambda item: twin_of(item.version.token)):
        stored = list(group)
        yield _empty_head(stored[0]), stored


def _flat(batch: Sequence[Sequence[StoredVersion]]) -> Iterator[StoredVersion]:
    return (item for versions in batch for item in versions)


def _batches(cluster: Cluster, index: str | None = None) -> Iterator[list[list[StoredVersion]]]:
    """Yield all documents, some hundred at a time, each with its stored versions."""
    batch: list[list[StoredVersion]] = []
    for _, group in groupby(
        _versions(cluster, index or cluster.read_alias), key=lambda item: (item.tenant, item.document_id)
    ):
        batch.append(list(group))
        if len(batch) == _PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _versions(cluster: Cluster, searched: str) -> Iterator[StoredVersion]:
    """Yield the stored versions by tenant, document and token, as searches see them."""
    fields = [*ACCESS_FIELDS, "source_id"]
    inner = {
        "last": {"max": {"field": "position"}},
        "newest": {"max": {"field": "ingested_at"}},
        "sample": {"top_hits": {"size": 1, "_source": fields}},
    }
    indexes = {"terms": {"field": "_index", "size": _INDEXES}, "aggs": inner}

    def search(aggregations: dict[str, Any]) -> Any:
        body = {"size": 0, "aggs": aggregations}
        return cluster.request_all_shards(f"/{searched}/_search", body, timeout_s=60.0)["aggregations"]

    for page in distinct(search, ["tenant", "document_id", "content_hash"], _PAGE, indexes=indexes):
        for bucket in page:
            yield from _stored(bucket)


def _stored(bucket: dict[str, Any]) -> Iterator[StoredVersion]:
    key = bucket["key"]
    for item in bucket["indexes"]["buckets"]:
        sample = item["sample"]["hits"]["hits"][0]["_source"]
        yield StoredVersion(
            key["tenant"],
            key["document_id"],
            Version(key["content_hash"], int(item["last"]["value"]) + 1, item["key"]),
            int(item["doc_count"]),
            float(item["newest"]["value"] or 0),
            Access.of(sample),
            sample.get("source_id", ""),
        )
