"""Writes and erases passages in bulk: item by item what went in, what did not and why; retried where that is safe."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from app.access import ACCESS_FIELDS
from app.errors import StoreError, StoreNotReady, StoreUnavailable
from app.passage import Passage
from app.store.client import WRITE_ALIAS, Cluster, StoreRequestError
from app.store.queries import TOKEN_VECTORS
from app.store.reasons import safe_reason

MAX_REQUEST_BYTES = 5 * 1024 * 1024
"""Of one request: OpenSearch's advice is 5 to 15 MB; smaller ones overlap better with encoding."""

_RETRIED = frozenset({429, 502, 503, 504})
_TOO_LARGE = 413
_PARAMS = {"timeout": "10s"}
"""How long OpenSearch waits for a shard that is starting; the default of a minute would use up our patience at once."""
_REQUEST_TIMEOUT_S = 60.0
_NO_SPACE = "No space left on device"
_CONFLICT = 409
_ERASED = 1 << 62
"""The version of a passage that is erased: higher than any that is written, so that what arrives late is refused."""


@dataclass(frozen=True, slots=True)
class BulkFailure:
    """A passage that did not go in, and why; `reason` never quotes the passage."""

    id: str
    document_id: str
    status: int
    reason: str


@dataclass(slots=True)
class BulkOutcome:
    """How many passages went in, and those that did not."""

    indexed: int = 0
    failed: list[BulkFailure] = field(default_factory=list)
    retried: int = 0


@dataclass(frozen=True, slots=True)
class _Item:
    """One line (an erasure) or two of a bulk request, and which passage they are about."""

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
    """Index `passages`; their ids make a repeated write the same write.

    Items refused for load (429, 503) and requests that found no cluster are sent again, alone, with growing pauses, for
    `patience_s` seconds: long enough for a node to restart. Anything else that is refused is reported and not repeated.

    Args:
        cluster: where to.
        passages: with ids, vectors and all.
        index: a physical index; None: through the write alias.
        versions: document id -> external version of its passages. One that is there with the same or a higher version
            stays as it is and counts as written: it was written before, or must not be written any more.
        patience_s: for a cluster that is away.
        on_retry: told before each new try.
        between: called between two requests.

    Raises:
        StoreUnavailable: the cluster stayed away; how many passages were not written is in the message.
        StoreNotReady: there is no write alias.
        StoreError: the cluster takes no writes (disk full, read-only), or refused a request as a whole.
    """
    outcome = BulkOutcome()
    target = {"_index": cluster.write_alias, "require_alias": True} if index is None else {"_index": index}
    for number, chunk in enumerate(_requests(_index_items(passages, target, versions or {}, outcome))):
        if number and between is not None:
            between()
        _write(cluster, chunk, outcome, patience_s, on_retry or (lambda reason: None))
    return outcome


def bulk_erase(
    cluster: Cluster,
    passages: Iterable[tuple[str, str]],
    *,
    patience_s: float = 60.0,
    on_retry: Callable[[str], None] | None = None,
) -> None:
    """Erase passages, pairs of (physical index, id): OpenSearch refuses later writes of them.

    Ids that are not there are no error: a write of them may still be under way.

    Raises:
        StoreUnavailable, StoreError: as `bulk_index`; also where a single one was refused.
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
                refuse_if_blocked(error.error_type, error.status_code, error.detail)
            again, reason = chunk, error.detail
        except StoreRequestError as error:
            if error.status_code == _TOO_LARGE and len(chunk) > 1:  # a cluster or a proxy with a lower limit than ours
                half = len(chunk) // 2
                _write(cluster, chunk[:half], outcome, patience_s, on_retry)
                chunk = chunk[half:]
                continue
            refuse_if_blocked(error.error_type, error.status_code, error.detail)
            raise
        else:
            again = _sort_out(answer, chunk, outcome)
            reason = f"{len(again)} passages refused for load"
        chunk = again
        if not chunk:
            return
        if time.monotonic() >= until:
            raise StoreUnavailable(
                f"{len(chunk)} passages could not be written for {patience_s:.0f} s ({reason}); "
                "nothing is lost: do the same again when OpenSearch is back"
            )
        attempt += 1
        outcome.retried += len(chunk)
        on_retry(reason)
        # full jitter, so that several writers do not come back at the same moment
        time.sleep(random.uniform(0.1, min(10.0, 0.25 * 2**attempt)))  # noqa: S311  # no secret


def _sort_out(answer: dict[str, Any], chunk: list[_Item], outcome: BulkOutcome) -> list[_Item]:
    """Count what went in, note what failed for good, give back what to try again."""
    again = []
    for item, found in zip(chunk, answer["items"], strict=True):
        verb, result = next(iter(found.items()))
        status = int(result["status"])
        if status < 300 or status == _CONFLICT or (verb == "delete" and result.get("result") == "not_found"):
            outcome.indexed += 1
            continue
        kind, reason = str(result["error"].get("type")), safe_reason(result["error"])
        refuse_if_blocked(kind, status, reason)
        if status in _RETRIED:
            again.append(item)
        else:
            outcome.failed.append(BulkFailure(item.id, item.document_id, status, f"{kind}: {reason}"))
    return again


def refuse_if_blocked(kind: str, status: int, reason: str) -> None:
    """Raise if all other writes would fare the same, and waiting for a minute would not help.

    Raises:
        StoreError: a block, a full disk. StoreNotReady: no index.
    """
    if (kind == "cluster_block_exception" and status != 503) or _NO_SPACE in reason:
        raise StoreError(
            f"OpenSearch takes no writes ({reason}): if its disk is full, free space on its nodes, else lift the "
            "block; then run the same again"
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
            reason = "not_unicode: a field holds half a character (a lone surrogate)"
            outcome.failed.append(BulkFailure(passage.id, passage.document_id, 400, reason))
            continue
        yield _Item(passage.id, passage.document_id, lines)


def _lines(passage: Passage, target: dict[str, Any]) -> bytes:
    action = {"index": target}
    source: dict[str, Any] = {
        "document_id": passage.document_id,
        "source_id": passage.source_id,
        "source_type": passage.source_type,
        "uri": passage.uri,
        "title": passage.title,
        "section_heading": passage.section_heading,
        "text": passage.text,
        "position": passage.position,
        "token_count": passage.token_count,
        "timestamp": passage.timestamp,
        "topic_tags": passage.topic_tags,
        "tenant": passage.tenant,
        **{name: entries for name in ACCESS_FIELDS if (entries := getattr(passage, name)) or name == "acl"},
        "content_hash": passage.content_hash,
        "embedding_model": passage.embedding_model,
    }
    if passage.page is not None:
        source["page"] = passage.page
    for name in ("pages", "language"):
        if value := getattr(passage, name):
            source[name] = value
    if passage.embedding is not None:
        # as float32 the shortest text that reads back the same: half the bytes of a float64's
        source["embedding"] = np.asarray(passage.embedding, dtype=np.float32)
    if passage.token_vectors is not None:
        source[TOKEN_VECTORS] = base64.b64encode(passage.token_vectors).decode()
    option = orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(action) + b"\n" + orjson.dumps(source, option=option) + b"\n"
