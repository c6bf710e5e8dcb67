"""Writes passages in bulk: item by item what went in, what did not and why; retried where that is safe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.errors import StoreUnavailable
from app.passage import Passage
from app.store.client import Cluster
from app.store.rendering import WRITE_ALIAS

MAX_REQUEST_BYTES = 5 * 1024 * 1024
"""Of one request: OpenSearch's advice is 5 to 15 MB; smaller ones overlap better with encoding."""

_RETRIED = frozenset({429, 502, 503, 504})
_REASON_CHARACTERS = 200


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
        StoreError: a request as a whole was refused.
    """
    outcome = BulkOutcome()
    for chunk in _requests(passages):
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
            answer = cluster.request("POST", "/_bulk", body=b"".join(lines for _, lines in chunk), timeout_s=60)
        except StoreUnavailable as error:
            again, reason = chunk, error.detail
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
        elif status in _RETRIED:
            again.append((passage, lines))
        else:
            outcome.failed.append(BulkFailure(passage.id, passage.document_id, status, _reason(result["error"])))
    return again


def _reason(error: dict[str, Any]) -> str:
    kind, reason = str(error.get("type")), str(error.get("reason", ""))
    if kind == "cluster_block_exception":
        return (
            f"OpenSearch takes no writes ({reason[:_REASON_CHARACTERS]}): free disk space on its nodes, then run again"
        )
    # mapper_parsing_exception quotes the value ("Preview of field's value: '...'"): documents stay out of logs
    return f"{kind}: {reason.partition('Preview of')[0][:_REASON_CHARACTERS].strip()}"


def _requests(passages: Sequence[Passage]) -> Iterator[list[tuple[Passage, bytes]]]:
    chunk: list[tuple[Passage, bytes]] = []
    size = 0
    for passage in passages:
        lines = _lines(passage)
        if chunk and size + len(lines) > MAX_REQUEST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append((passage, lines))
        size += len(lines)
    if chunk:
        yield chunk


def _lines(passage: Passage) -> bytes:
    action = {"index": {"_index": WRITE_ALIAS, "_id": passage.id, "require_alias": True}}
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
    if passage.embedding is not None:
        source["embedding"] = passage.embedding
    option = orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(action) + b"\n" + orjson.dumps(source, option=option) + b"\n"
