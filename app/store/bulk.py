"""Bulk writes and erasures of passages with an outcome per item; retried where that is safe."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.errors import StoreError, StoreNotReady, StoreUnavailable
from app.passage import Passage
from app.store.client import WRITE_ALIAS, Cluster, StoreRequestError
from app.store.passages import TOKEN_VECTORS, read_token_vectors, source_of
from app.store.reasons import safe_reason

MAX_REQUEST_BYTES = 5 * 1024 * 1024
"""Maximum bytes of a request: OpenSearch recommends 5 to 15 MB; smaller ones overlap better with encoding."""

_RETRIED = frozenset({429, 502, 503, 504})
_TOO_LARGE = 413
_PARAMS = {"timeout": "10s"}
"""Time that OpenSearch waits for a starting shard; the default of a minute would use up our patience at once."""
_REQUEST_TIMEOUT_S = 60.0
_NO_SPACE = "No space left on device"
_CONFLICT = 409
_ERASED = 1 << 62
"""Version of an erased passage: higher than any written one, so that late writes are rejected."""


@dataclass(frozen=True, slots=True)
class BulkFailure:
    """A passage that was not written, and the reason; `reason` never quotes the passage."""

    id: str
    document_id: str
    status: int
    reason: str


@dataclass(slots=True)
class BulkOutcome:
    """Number of written passages, and the failed ones."""

    indexed: int = 0
    failed: list[BulkFailure] = field(default_factory=list)
    retried: int = 0


@dataclass(frozen=True, slots=True)
class _Item:
    """One line (an erasure) or two of a bulk request, and their passage."""

    id: str
    document_id: str
    lines: bytes


def bulk_index(
    cluster: Cluster,
    passages: Iterable[Passage],
    *,
    index: str | None = None,
    versions: Mapping[str, int] | None = None,
    patience_s: float = 60.0,
    on_retry: Callable[[str], None] | None = None,
    between: Callable[[], None] | None = None,
) -> BulkOutcome:
    """Index `passages`; their ids make a repeated write idempotent.

    Items rejected for load (429, 503) and requests that reached no cluster are sent again, with growing pauses, for
    `patience_s` seconds: long enough for a node to restart. Other rejected items are reported and not repeated.

    Args:
        passages: complete passages, with ids and vectors.
        index: a physical index; None: through the write alias.
        versions: document id -> external version of its passages. An existing passage with the same or a higher version
            stays unchanged and counts as written: it was written before, or must no longer be written.
        patience_s: seconds to wait for an unavailable cluster.

    Raises:
        StoreUnavailable: the cluster stayed unavailable; the message has the number of unwritten passages.
        StoreNotReady: there is no write alias.
        StoreError: the cluster rejects writes (disk full, read-only), or rejected a whole request.
    """
    outcome = BulkOutcome()
    target = {"_index": cluster.write_alias, "require_alias": True} if index is None else {"_index": index}
    for number, chunk in enumerate(_requests(_index_items(passages, target, versions or {}, outcome))):
        if number and between is not None:
            between()
        _write(cluster, chunk, outcome, patience_s, on_retry or (lambda reason: None))
    return outcome


def bulk_copy(
    cluster: Cluster, hits: Iterable[Mapping[str, Any]], index: str, *, patience_s: float = 60.0
) -> BulkOutcome:
    """Index hits of a search as they are into the physical `index`, with their ids and external versions.

    Args:
        hits: with `_source`, `_version` and the doc values of `passages.TOKEN_VECTORS`.

    Raises:
        StoreUnavailable, StoreNotReady, StoreError: as `bulk_index`.
    """
    outcome = BulkOutcome()
    for chunk in _requests(_copied_items(hits, index)):
        _write(cluster, chunk, outcome, patience_s, lambda reason: None)
    return outcome


def bulk_erase(
    cluster: Cluster,
    passages: Iterable[tuple[str, str]],
    *,
    patience_s: float = 60.0,
    on_retry: Callable[[str], None] | None = None,
) -> None:
    """Erase passages, pairs of (physical index, id); OpenSearch rejects later writes of them.

    Missing ids are not an error: a write of them may still be under way.

    Raises:
        StoreUnavailable, StoreError: as `bulk_index`; also if a single erasure was rejected.
    """
    outcome = BulkOutcome()
    items = (
        _Item(key, "", orjson.dumps({"delete": {"_index": index, "_id": key, **_ERASE}}) + b"\n")
        for index, key in passages
    )
    for chunk in _requests(items):
        _write(cluster, chunk, outcome, patience_s, on_retry or (lambda reason: None))
    if outcome.failed:
        raise StoreError(f"OpenSearch did not erase {len(outcome.failed)} passages: {outcome.failed[0].reason}")


_ERASE = {"version": _ERASED, "version_type": "external_gte"}


def _write(
    cluster: Cluster,
    chunk: list[_Item],
    outcome: BulkOutcome,
    patience_s: float,
    on_retry: Callable[[str], None],
) -> None:
    until = time.monotonic() + patience_s
    attempt = 0
    while chunk:
        again: list[_Item] = []
        reason = ""
        try:
            answer = cluster.request(
                "POST",
                "/_bulk",
                params=_PARAMS,
                body=b"".join(item.lines for item in chunk),
                timeout_s=min(_REQUEST_TIMEOUT_S, max(1.0, until - time.monotonic())),
            )
        except StoreUnavailable as error:
            if isinstance(error, StoreRequestError):
                raise_if_blocked(error.error_type, error.status_code, error.detail)
            again, reason = chunk, error.detail
        except StoreRequestError as error:
            if error.status_code == _TOO_LARGE and len(chunk) > 1:  # a cluster or a proxy with a lower limit than ours
                half = len(chunk) // 2
                _write(cluster, chunk[:half], outcome, patience_s, on_retry)
                chunk = chunk[half:]
                continue
            raise_if_blocked(error.error_type, error.status_code, error.detail)
            raise
        else:
            again = _apply_outcome(answer, chunk, outcome)
            reason = f"{len(again)} passages rejected for load"
        chunk = again
        if not chunk:
            return
        if time.monotonic() >= until:
            raise StoreUnavailable(
                f"{len(chunk)} passages could not be written for {patience_s:.0f} s ({reason}); "
                "nothing is lost: retry when OpenSearch is available"
            )
        attempt += 1
        outcome.retried += len(chunk)
        on_retry(reason)
        # full jitter, so that several writers do not retry at the same moment
        time.sleep(random.uniform(0.1, min(10.0, 0.25 * 2**attempt)))  # noqa: S311  # not for security


def _apply_outcome(answer: dict[str, Any], chunk: list[_Item], outcome: BulkOutcome) -> list[_Item]:
    """Count written items, record final failures, return the items to retry."""
    again = []
    for item, found in zip(chunk, answer["items"], strict=True):
        verb, result = next(iter(found.items()))
        status = int(result["status"])
        if status < 300 or status == _CONFLICT or (verb == "delete" and result.get("result") == "not_found"):
            outcome.indexed += 1
            continue
        kind, reason = str(result["error"].get("type")), safe_reason(result["error"])
        raise_if_blocked(kind, status, reason)
        if status in _RETRIED:
            again.append(item)
        else:
            outcome.failed.append(BulkFailure(item.id, item.document_id, status, f"{kind}: {reason}"))
    return again


def raise_if_blocked(kind: str, status: int, reason: str) -> None:
    """Raise if all other writes would fail, too, and waiting for a minute would not help.

    Raises:
        StoreError: a block, a full disk. StoreNotReady: no index.
    """
    if (kind == "cluster_block_exception" and status != 503) or _NO_SPACE in reason:
        raise StoreError(
            f"OpenSearch rejects writes ({reason}): if its disk is full, free space on its nodes, else lift the "
            "block; then retry"
        )
    if kind == "index_not_found_exception":
        raise StoreNotReady(f"alias {WRITE_ALIAS}, or its index, is missing: run `braid templates apply`")


def _requests(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    chunk: list[_Item] = []
    size = 0
    for item in items:
        if chunk and size + len(item.lines) > MAX_REQUEST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.lines)
    if chunk:
        yield chunk


def _index_items(
    passages: Iterable[Passage], target: dict[str, Any], versions: Mapping[str, int], outcome: BulkOutcome
) -> Iterator[_Item]:
    for passage in passages:
        version = versions.get(passage.document_id)
        external = {"version": version, "version_type": "external"} if version is not None else {}
        try:
            lines = _lines(passage, {"_id": passage.id, **target, **external})
        except orjson.JSONEncodeError:
            reason = "not_unicode: a field contains an unpaired surrogate"
            outcome.failed.append(BulkFailure(passage.id, passage.document_id, 400, reason))
            continue
        yield _Item(passage.id, passage.document_id, lines)


def _copied_items(hits: Iterable[Mapping[str, Any]], index: str) -> Iterator[_Item]:
    for hit in hits:
        source = dict(hit["_source"])
        if (packed := read_token_vectors(hit)) is not None:
            source[TOKEN_VECTORS] = base64.b64encode(packed).decode()
        action = {"_index": index, "_id": hit["_id"], "version": hit["_version"], "version_type": "external_gte"}
        lines = orjson.dumps({"index": action}) + b"\n" + orjson.dumps(source) + b"\n"
        yield _Item(hit["_id"], str(source.get("document_id", "")), lines)


def _lines(passage: Passage, target: dict[str, Any]) -> bytes:
    source = orjson.dumps(source_of(passage), option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.dumps({"index": target}) + b"\n" + source + b"\n"
