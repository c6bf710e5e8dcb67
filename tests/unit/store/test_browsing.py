"""Listing and opening, around a cluster with fixed answers: what is not in force takes no places."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from app.deadline import Deadline
from app.store.browsing import find_passages, list_documents
from app.store.client import Cluster
from app.store.filters import EVERYTHING, Scope
from app.store.head_check import HeadCheck, VersionName

SCOPE = Scope("t", frozenset({"crew"}))


def raw(document_id: str, token: str, position: int) -> dict[str, Any]:
    source = {"document_id": document_id, "content_hash": token, "position": position, "text": "x", "title": ""}
    source |= {"section_heading": "", "source_id": "s", "source_type": "text", "uri": "", "topic_tags": []}
    return {"_id": f"{document_id}-{token}-{position}", "_score": None, "_source": source | {"page": None}}


class Store:
    """Passages of versions; answers as OpenSearch would, as far as these requests go."""

    read_alias = "braid-passages"

    def __init__(self, *versions: tuple[str, str, int], live: Iterable[VersionName]) -> None:
        self.versions = sorted(versions)
        self.live = set(live)
        self.searches: list[dict[str, Any]] = []
        self.head_reads = 0

    def request_all_shards(self, _path: str, body: dict[str, Any], **_options: Any) -> dict[str, Any]:
        self.searches.append(body)
        if "aggs" in body:
            return {"aggregations": {"versions": self._page(body["aggs"]["versions"]["composite"])}}
        tokens = next(
            (item["terms"]["content_hash"] for item in body["query"]["bool"]["filter"] if "content_hash" in str(item)),
            None,
        )
        hits = [
            raw(name, token, position)
            for name, token, count in self.versions
            for position in range(count)
            if tokens is None or token in tokens
        ]
        hits.sort(key=lambda hit: (hit["_source"]["position"], hit["_source"]["content_hash"]))
        return {"hits": {"hits": hits[: body["size"]]}, "_shards": {"total": 1, "failed": 0}}

    def in_force(self, _scope: Scope, versions: Iterable[VersionName], _timeout_s: float) -> set[VersionName]:
        self.head_reads += 1
        return self.live & set(versions)

    def _page(self, composite: dict[str, Any]) -> dict[str, Any]:
        after = composite.get("after", {"document_id": "", "content_hash": ""})
        rest = [item for item in self.versions if item[:2] > (after["document_id"], after["content_hash"])]
        page = rest[: composite["size"]]
        buckets = [
            {
                "doc_count": count,
                "last_page": {"value": None},
                "first": {"hits": {"hits": [raw(name, token, 0)]}},
            }
            for name, token, count in page
        ]
        found: dict[str, Any] = {"buckets": buckets}
        if page:
            found["after_key"] = {"document_id": page[-1][0], "content_hash": page[-1][1]}
        return found


def find(store: Store, size: int) -> list[str]:
    found = find_passages(
        cast(Cluster, store),
        cast(HeadCheck, store),
        SCOPE,
        EVERYTHING,
        size=size,
        deadline=Deadline.after(60_000),
    )
    return [hit.id for hit in found]


def listed(store: Store, after: str, size: int) -> tuple[list[str], bool]:
    documents, more = list_documents(
        cast(Cluster, store),
        cast(HeadCheck, store),
        SCOPE,
        EVERYTHING,
        after=after,
        size=size,
        deadline=Deadline.after(60_000),
    )
    return [item.first.document_id for item in documents], more


def test_a_version_that_is_not_in_force_takes_no_places() -> None:
    store = Store(("d", "new", 3), ("d", "old", 3), live=[("d", "new")])
    assert find(store, 3) == ["d-new-0", "d-new-1", "d-new-2"]
    assert len(store.searches) == 2


def test_what_is_not_there_takes_one_request_and_what_is_shown_two() -> None:
    store = Store(live=[])
    assert find(store, 3) == []
    assert (len(store.searches), store.head_reads) == (1, 0)
    store = Store(("d", "new", 3), live=[("d", "new")])
    assert len(find(store, 2)) == 2
    assert (len(store.searches), store.head_reads) == (1, 1)


def test_passages_that_nobody_may_see_any_more_are_not_found() -> None:
    assert find(Store(("d", "new", 3), live=[]), 3) == []


def test_every_request_has_the_scope() -> None:
    store = Store(("d", "old", 1), ("d", "new", 1), live=[("d", "new")])
    find(store, 1)
    listed(store, "", 1)
    for body in store.searches:
        assert {"terms": {"acl": ["crew", "public"]}} in body["query"]["bool"]["filter"]
        assert {"term": {"tenant": "t"}} in body["query"]["bool"]["filter"]


def test_a_list_is_filled_past_what_is_not_in_force_and_goes_on_without_gap() -> None:
    names = [f"{number:03d}" for number in range(130)]
    shown = [name for name in names if int(name) % 40 == 0]
    store = Store(*((name, "v", 1) for name in names), live=[(name, "v") for name in shown])
    assert listed(store, "", 2) == (["000", "040"], True)
    assert listed(store, "040", 2) == (["080", "120"], False)
    assert listed(store, "120", 2) == ([], False)


def test_a_document_is_listed_once_whatever_versions_it_has() -> None:
    store = Store(("a", "1", 1), ("a", "2", 1), ("b", "1", 1), live=[("a", "1"), ("a", "2"), ("b", "1")])
    assert listed(store, "", 1) == (["a"], True)
    assert listed(store, "a", 5) == (["b"], False)
