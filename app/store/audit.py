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
from app.store.heads import Head, Version, in_force, read_heads, twin_of, write_heads

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
    lacking: list[Head] = field(default_factory=list)
    """Some or all passages of the version in force are missing: to be disowned, and ingested again."""
    headless: list[tuple[str, str]] = field(default_factory=list)
    """There is no head, so nothing of them is shown."""

    @property
    def incomplete(self) -> list[tuple[str, str]]:
        """The documents that lack passages."""
        return [(head.tenant, head.document_id) for head in self.lacking]


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
    for page in in_force(cluster):
        found.lacking += _lacking(cluster, page)
    return found


def disown(cluster: Cluster, heads: Sequence[Head]) -> int:
    """Let the next ingest of documents write them anew: how many.

    Their content would count as stored, and be skipped as unchanged. What is there of them is shown until then.

    Raises:
        StoreError.
    """
    return sum(item.outcome == "stored" for item in write_heads(cluster, [replace(h, content_hash="") for h in heads]))


def build(cluster: Cluster, index: str | None = None) -> int:
    """Make heads for documents that have none, from their newest complete version; how many.

    Other versions of them become garbage, which the next sweep erases. Heads that are there are left alone.

    Args:
        cluster: of the service.
        index: whose passages count, before an alias names it; None: all that searches see.

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
                if not heads[empty.key].exists and (head := _built(empty, stored)) is not None:
                    new[head.key] = head
            there = new.pop(document.key, None) or heads[document.key]
            twins = {twin for item in versions if (twin := twin_of(item.version.token))} - set(there.twins)
            if twins:  # else nobody but searches would find them
                there = replace(there, twins=(*there.twins, *sorted(twins)))
            if there != heads[document.key]:
                lists[document.key] = there
        # neighbours last: one that has a head is taken to be listed
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


def _lacking(cluster: Cluster, heads: Sequence[Head]) -> list[Head]:
    """Those whose version in force is not there as a whole; read anew, and not those that were replaced meanwhile."""
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
    answer = cluster.whole(f"/{cluster.read_alias}/_search", body, timeout_s=60.0)
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


def _batches(cluster: Cluster, index: str | None = None) -> Iterator[list[list[StoredVersion]]]:
    """All documents, some hundred at a time, each with all that is stored of it."""
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
        answer = cluster.whole(f"/{searched}/_search", body, timeout_s=60.0)
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
