"""A copy of an index of passages in its place: ids, versions, readers and token vectors stay.

OpenSearch's own `_reindex` loses token vectors, which are doc values outside `_source`. Writes are blocked meanwhile;
searches go on in the old index, and then in the new one. Heads name the index of each version, so they are changed
after the aliases, each by compare-and-set.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.errors import InvalidInput, StoreError, StoreUnavailable
from app.languages import detect
from app.store import head_audit, heads
from app.store.bulk import bulk_copy
from app.store.client import READ_ALIAS, Cluster
from app.store.heads import Head, Version, all_heads, write_heads
from app.store.index_names import CACHE_S
from app.store.paging import scan
from app.store.passages import TOKEN_VECTORS
from app.store.rendering import Json, RenderedResources
from app.store.templates import live_indexes, put_resources

_PAGE = 200
"""Passages per request: some 20 kB each."""
_TIMEOUT_S = 60.0
_BLOCK = "index.blocks.write"


@dataclass(frozen=True, slots=True)
class IndexCopy:
    """The index that was copied, the one in its place, and the number of passages and of heads changed."""

    old: str
    new: str
    passages: int
    heads: int


def reindex(
    cluster: Cluster, rendered: RenderedResources, index: str | None, progress: Callable[[int], None]
) -> IndexCopy:
    """Copy an index behind our aliases into a new one made from the templates, which takes its place.

    The old index stays, closed to writes. If the copy fails, it is open again, and the new one is gone.

    Args:
        rendered: templates of the new index; applied first.
        index: the index to copy; None: the one that is written.
        progress: called with the number of passages copied so far.

    Raises:
        InvalidInput: no such index, or its vectors are of another model or dimension.
        StoreError: the copy failed.
    """
    live = live_indexes(cluster)
    old = index or next(iter(live.write_indexes), None)
    if old is None or old not in live.indexes:
        known = ", ".join(live.indexes) or "none"
        raise InvalidInput(f"index {old or 'to write'} is not behind the alias {READ_ALIAS}; behind it: {known}")
    item = live.all_indexes[old]
    _require_same_model(old, item["mappings"], rendered)
    new = _next_name(live.all_indexes)
    put_resources(cluster, rendered)
    heads.ensure_index(cluster)
    cluster.request("PUT", f"/{old}/_block/write", timeout_s=_TIMEOUT_S)
    cluster.request("PUT", f"/{new}", timeout_s=_TIMEOUT_S)
    try:
        copied = copy_passages(cluster, old, new, progress)
        head_audit.build(cluster, new)  # where an older Braid wrote none
        actions: list[Json] = []
        for alias, options in item["aliases"].items():
            actions.append({"remove": {"index": old, "alias": alias}})
            actions.append({"add": {"index": new, "alias": alias, **options}})
        cluster.request("POST", "/_aliases", body={"actions": actions}, timeout_s=_TIMEOUT_S)
    except BaseException:
        with contextlib.suppress(StoreError):  # the first error counts
            cluster.request("DELETE", f"/{new}", timeout_s=_TIMEOUT_S)
            cluster.request("PUT", f"/{old}/_settings", body={_BLOCK: None}, timeout_s=_TIMEOUT_S)
        raise
    return IndexCopy(old, new, copied, _move_heads(cluster, old, new))


def _require_same_model(index: str, mappings: Json, rendered: RenderedResources) -> None:
    about = mappings.get("_meta", {})
    wanted = rendered.embedding_model, rendered.dimension
    found = about.get("embedding_model"), about.get("dimension")
    if found != wanted:
        raise InvalidInput(
            f"index {index} has vectors of {found[0]} ({found[1]} dimensions), these settings need {wanted[0]} "
            f"({wanted[1]}): ingest the sources again (`braid ingest`), a copy would keep the vectors"
        )


def _next_name(names: Json) -> str:
    numbers = [int(found[1]) for name in names if (found := re.fullmatch(rf"{READ_ALIAS}-(\d{{6}})", name))]
    return f"{READ_ALIAS}-{max(numbers, default=0) + 1:06d}"


def copy_passages(cluster: Cluster, old: str, new: str, progress: Callable[[int], None]) -> int:
    """Copy all passages as they are into an empty index; return their number.

    Raises:
        StoreError: the copy is not whole.
    """
    cluster.request("POST", f"/{old}/_refresh", timeout_s=_TIMEOUT_S)
    copied = 0
    body = {"size": _PAGE, "version": True, "docvalue_fields": [TOKEN_VECTORS], "_source": True}
    for hits in scan(cluster, old, body, timeout_s=_TIMEOUT_S):
        for hit in hits:
            _add_language(hit["_source"])
        outcome = bulk_copy(cluster, hits, new)
        if outcome.failed:
            raise StoreError(f"index {new} rejected a passage ({outcome.failed[0].reason}): nothing was changed")
        copied += len(hits)
        progress(copied)
    cluster.request("POST", f"/{new}/_refresh", timeout_s=_TIMEOUT_S)
    there, wanted = (int(cluster.request_all_shards(f"/{name}/_count", {})["count"]) for name in (new, old))
    if there != wanted:
        raise StoreError(f"index {new} has {there} passages, {old} has {wanted}: nothing was changed, try again")
    return copied


def _add_language(source: Json) -> None:
    """Add the detected language of a passage that an older Braid wrote: its text field is chosen by it."""
    if not {"language", "detected_language", "language_confidence"} & source.keys():
        found = detect(str(source.get("text", "")))
        source["language_confidence"] = found.confidence
        if found.language is not None:
            source["detected_language"] = found.language


def _move_heads(cluster: Cluster, old: str, new: str) -> int:
    """Let all heads name the new index; return their number.

    A writer may have learned of the old index before the aliases moved, and names it in an attempt, which the block
    refuses. So heads are read until none names it any more, the last time after all writers know the new one.
    """
    moved = 0
    settled = time.monotonic() + CACHE_S
    while True:
        began, left = time.monotonic(), False
        for page in all_heads(cluster, timeout_s=_TIMEOUT_S):
            changed = [head for item in page if (head := _moved(item, old, new)) != item]
            stored = sum(item.outcome == "stored" for item in write_heads(cluster, changed))
            moved += stored
            left = left or stored < len(changed)
        if not left and began > settled:
            return moved
        if began > settled + _TIMEOUT_S:
            raise StoreUnavailable(f"heads still name index {old}: run `braid reindex` again when writes rest")
        time.sleep(0.5)


def _moved(head: Head, old: str, new: str) -> Head:
    def there(version: Version) -> Version:
        return replace(version, index=new) if version.index == old else version

    return replace(
        head,
        version=there(head.version) if head.version is not None else None,
        pending=tuple(map(there, head.pending)),
        garbage=tuple(map(there, head.garbage)),
    )
