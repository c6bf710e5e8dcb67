"""Compares passages with the heads of their documents: after a restore, before an index is replaced, now and then.

Ordinary writes need none of it. It finds passages that no head will ever put in force (written later than OpenSearch
remembers that they were erased, or past Braid), versions in force that lack passages, and documents without a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from app.access import ACCESS_FIELDS, Access
from app.store.client import Cluster
from app.store.heads import Head, Version, read_heads, twin_of, write_heads

_PAGE = 500
_INDEXES = 100


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """What is stored under one token of one document, in one index."""

    tenant: str
    document_id: str
    version: Version
    """`passages` as they would be without gaps: one more than the highest position."""
    count: int
    newest_ms: float
    access: Access
    source_id: str

    @property
    def complete(self) -> bool:
        return self.count == self.version.passages


@dataclass(slots=True)
class Audit:
    """What was found. Documents are named as pairs of (tenant, document id)."""

    documents: int = 0
    strays: list[Head] = field(default_factory=list)
    """Heads, with the versions in `garbage` that are stored and can't be in force."""
    incomplete: list[tuple[str, str]] = field(default_factory=list)
    """Some passages of the version in force are missing: to be ingested again."""
    headless: list[tuple[str, str]] = field(default_factory=list)
    """There is no head, so nothing of them is shown."""


def audit(cluster: Cluster) -> Audit:
    """Compare all that searches see with the heads as they are now. Nothing is changed.

    What writers do meanwhile may be reported as incomplete: run it while ingest rests, or twice.

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
    return found


def build(cluster: Cluster) -> int:
    """Make heads for documents that have none, from their newest complete version; how many.

    Other versions of them become garbage, which the next sweep erases. Heads that are there are left alone.

    Raises:
        StoreError.
    """
    built = 0
    for batch in _batches(cluster):
        heads = read_heads(cluster, {head.key: head for head in map(_empty_head, _flat(batch))}.values())
        new = []
        for versions in batch:
            for empty, stored in _by_head(versions):
                if not heads[empty.key].exists and (head := _built(empty, stored)) is not None:
                    new.append(head)
        built += sum(item.outcome == "stored" for item in write_heads(cluster, new))
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
    if head.version is not None:
        ours = [item for item in stored if item.version == head.version]
        if not any(item.complete for item in ours):
            found.incomplete.append(name)


def _built(empty: Head, stored: Sequence[StoredVersion]) -> Head | None:
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


def _batches(cluster: Cluster) -> Iterator[list[list[StoredVersion]]]:
    """All documents, some hundred at a time, each with all that is stored of it."""
    batch: list[list[StoredVersion]] = []
    for _, group in groupby(_versions(cluster), key=lambda item: (item.tenant, item.document_id)):
        batch.append(list(group))
        if len(batch) == _PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _versions(cluster: Cluster) -> Iterator[StoredVersion]:
    """What is stored, by tenant, document and token. As searches see it."""
    fields = [*ACCESS_FIELDS, "source_id"]
    inner = {
        "last": {"max": {"field": "position"}},
        "newest": {"max": {"field": "ingested_at"}},
        "sample": {"top_hits": {"size": 1, "_source": fields}},
    }
    names = ("tenant", "document_id", "content_hash")
    after: dict[str, str] | None = None
    while True:
        composite: dict[str, Any] = {"size": _PAGE, "sources": [{name: {"terms": {"field": name}}} for name in names]}
        if after is not None:
            composite["after"] = after
        indexes = {"terms": {"field": "_index", "size": _INDEXES}, "aggs": inner}
        body = {"size": 0, "aggs": {"versions": {"composite": composite, "aggs": {"indexes": indexes}}}}
        answer = cluster.whole(f"/{cluster.read_alias}/_search", body, timeout_s=60.0)
        found = answer["aggregations"]["versions"]
        for bucket in found["buckets"]:
            yield from _stored(bucket)
        after = found.get("after_key")
        if after is None:
            return


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
