"""Writes passages in bulk: item by item what went in, what did not and why; retried where that is safe."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from app.access import RESTRICTIONS
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


def bulk_index(
    cluster: Cluster,
    passages: Sequence[Passage],
    *,
    patience_s: float = 60.0,
    on_retry: Callable[[str], None] | None = None,
) -> BulkOutcome:
    """Index `passages` through the write alias; their ids make a repeated write the same write.

    Items refused for load (429, 503) and requests that found no cluster are sent again, alone, with growing pauses, for
    `patience_s` seconds: long enough for a node to restart. Anything else that is refused is reported and not repeated.

    Raises:
        StoreUnavailable: the cluster stayed away; how many passages were not written is in the message.
        StoreNotReady: there is no write alias.
        StoreError: the cluster takes no writes (disk full, read-only), or refused a request as a whole.
    """
    outcome = BulkOutcome()
    for chunk in _requests(cluster.write_alias, passages, outcome):
        _write(cluster, chunk, outcome, patience_s, on_retry or (lambda reason: None))
    return outcome


def _write(
    cluster: Cluster,
    chunk: list[tuple[Passage, bytes]],
    outcome: BulkOutcome,
    patience_s: float,
    on_retry: Callable[[str], None],
) -> None:
    until = time.monotonic() + patience_s
    attempt = 0
    while chunk:
        again: list[tuple[Passage, bytes]] = []
        reason = ""
        try:
            answer = cluster.request(
                "POST",
                "/_bulk",
                params=_PARAMS,
                body=b"".join(lines for _, lines in chunk),
                timeout_s=_REQUEST_TIMEOUT_S,
            )
        except StoreUnavailable as error:
            if isinstance(error, StoreRequestError):
                _stop_if_blocked(error.error_type, error.status_code, error.detail)
            again, reason = chunk, error.detail
        except StoreRequestError as error:
            if error.status_code == _TOO_LARGE and len(chunk) > 1:  # a cluster or a proxy with a lower limit than ours
                half = len(chunk) // 2
                _write(cluster, chunk[:half], outcome, patience_s, on_retry)
                chunk = chunk[half:]
                continue
            _stop_if_blocked(error.error_type, error.status_code, error.detail)
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
                "nothing is lost: run the same ingest again when OpenSearch is back"
            )
        attempt += 1
        outcome.retried += len(chunk)
        on_retry(reason)
        # full jitter, so that several writers do not come back at the same moment
        time.sleep(random.uniform(0.1, min(10.0, 0.25 * 2**attempt)))  # noqa: S311  # no secret


def _sort_out(
    answer: dict[str, Any], chunk: list[tuple[Passage, bytes]], outcome: BulkOutcome
) -> list[tuple[Passage, bytes]]:
    """Count what went in, note what failed for good, give back what to try again."""
    again = []
    for (passage, lines), item in zip(chunk, answer["items"], strict=True):
        result = item["index"]
        status = int(result["status"])
        if status < 300:
            outcome.indexed += 1
            continue
        kind, reason = str(result["error"].get("type")), safe_reason(result["error"])
        _stop_if_blocked(kind, status, reason)
        if status in _RETRIED:
            again.append((passage, lines))
        else:
            outcome.failed.append(BulkFailure(passage.id, passage.document_id, status, f"{kind}: {reason}"))
    return again


def _stop_if_blocked(kind: str, status: int, reason: str) -> None:
    """Raise if all other passages would fare the same, and waiting for a minute would not help."""
    if (kind == "cluster_block_exception" and status != 503) or _NO_SPACE in reason:
        raise StoreError(
            f"OpenSearch takes no writes ({reason}): if its disk is full, free space on its nodes, else lift the "
            "block; then run the same again"
        )
    if kind == "index_not_found_exception":
        raise StoreNotReady(f"alias {WRITE_ALIAS} is missing: run `braid templates apply`")


def _requests(alias: str, passages: Sequence[Passage], outcome: BulkOutcome) -> Iterator[list[tuple[Passage, bytes]]]:
    chunk: list[tuple[Passage, bytes]] = []
    size = 0
    for passage in passages:
        try:
            lines = _lines(passage, alias)
        except orjson.JSONEncodeError:
            reason = "not_unicode: a field holds half a character (a lone surrogate)"
            outcome.failed.append(BulkFailure(passage.id, passage.document_id, 400, reason))
            continue
        if chunk and size + len(lines) > MAX_REQUEST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append((passage, lines))
        size += len(lines)
    if chunk:
        yield chunk


def _lines(passage: Passage, alias: str) -> bytes:
    action = {"index": {"_index": alias, "_id": passage.id, "require_alias": True}}
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
        "acl": passage.acl,
        "content_hash": passage.content_hash,
        "embedding_model": passage.embedding_model,
    }
    if passage.page is not None:
        source["page"] = passage.page
    for name in ("pages", "language", *RESTRICTIONS):  # an absent restriction is open
        if value := getattr(passage, name):
            source[name] = value
    if passage.embedding is not None:
        # as float32 the shortest text that reads back the same: half the bytes of a float64's
        source["embedding"] = np.asarray(passage.embedding, dtype=np.float32)
    if passage.token_vectors is not None:
        source[TOKEN_VECTORS] = base64.b64encode(passage.token_vectors).decode()
    option = orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(action) + b"\n" + orjson.dumps(source, option=option) + b"\n"
