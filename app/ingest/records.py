"""Ready documents: the fields of `POST /v1/documents` and of one line of JSON Lines, checked and made a `Document`."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, cast

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.access import PUBLIC
from app.errors import DocumentRejected
from app.ingest.enrich import normalise_tags
from app.passage import (
    Block,
    BlockKind,
    Document,
    ParsedDocument,
    SourceType,
    not_blank,
    readers,
    without_control_characters,
)

RECORD_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
LONGEST_LINE = 64 * 1024 * 1024
"""Bytes; as the largest body of `POST /v1/documents`."""

_ID_FIELDS = ("document_id", "_id", "id")
_IGNORED = frozenset({"metadata"})
"""BEIR's corpora carry it, mostly empty."""


def parse_timestamp(value: str) -> datetime:
    """ISO 8601 -> an aware datetime; without a zone it is UTC, a bare date is its midnight.

    Raises:
        ValueError: not ISO 8601.
    """
    if value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError(f"{value!r} is a number, not an ISO 8601 date such as 2024-05-31 or 2024-05-31T12:00:00Z")
    try:
        parsed = datetime.fromisoformat(value.strip())
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{value[:40]!r} is not an ISO 8601 date such as 2024-05-31 or 2024-05-31T12:00:00Z"
        ) from error


def _iso(value: str) -> str:
    parse_timestamp(value)
    return value


_Value = Annotated[
    str, Field(min_length=1, max_length=512), AfterValidator(not_blank), AfterValidator(without_control_characters)
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    document_id: _Value
    text: Annotated[str, Field(min_length=1), AfterValidator(not_blank)]
    title: Annotated[str, Field(max_length=1000)] | None = None
    source_id: _Value | None = None
    uri: Annotated[str, Field(max_length=2048)] | None = None
    timestamp: Annotated[str, Field(min_length=8, max_length=40), AfterValidator(_iso)] | None = None
    topic_tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=20)] | None = None
    acl: Annotated[list[str], AfterValidator(readers)] | None = None


def ready_document(
    fields: Mapping[str, Any],
    *,
    tenant: str,
    source_id: str,
    uri: str = "",
    tags: tuple[str, ...] = (),
    acl: tuple[str, ...] | None = None,
    whole: bool = False,
    title_is_enough: bool = False,
) -> Document:
    """The document that `fields` describe; the arguments are its defaults, and `tags` are added to its own.

    Where neither names readers, the document keeps those that it has in the store; a new one is everybody's.

    With `title_is_enough` the title of a record without text is its text (the public collections hold such records).
    `_id` and `id` are understood as `document_id`, `metadata` is ignored, anything else unknown is refused.

    Raises:
        DocumentRejected: ``invalid-record``, naming each field that is wrong, or ``empty`` for one without text.
    """
    known = {key: value for key, value in fields.items() if key not in _IGNORED}
    for alias in _ID_FIELDS:
        if alias in known and "document_id" not in known:
            known["document_id"] = known.pop(alias)
    if isinstance(known.get("document_id"), int):
        known["document_id"] = record_id(known)
    text, title = known.get("text"), known.get("title")
    if isinstance(text, str) and not text.strip():
        if not title_is_enough or not isinstance(title, str) or not title.strip():
            raise DocumentRejected("text: there is none", reason="empty")
        known["text"] = title
    try:
        record = _Record.model_validate(known)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        told = "; ".join(f"{'.'.join(str(p) for p in item['loc'])[:80]}: {item['msg']}" for item in problems[:5])
        raise DocumentRejected(told, reason="invalid-record") from error
    parsed = ParsedDocument(
        title=" ".join((record.title or "").split()),
        blocks=(Block(BlockKind.PARAGRAPH, record.text.strip()),),
        source_type=SourceType.JSON,
    )
    named = acl if record.acl is None else tuple(record.acl)
    return Document(
        document_id=record.document_id,
        source_id=record.source_id or source_id,
        uri=uri if record.uri is None else record.uri,
        parsed=parsed,
        tags=normalise_tags((*(record.topic_tags or ()), *tags)),
        tenant=tenant,
        acl=(PUBLIC,) if named is None else named,
        keeps_acl=named is None,
        timestamp=parse_timestamp(record.timestamp) if record.timestamp else None,
        whole=whole,
    )


def record_id(fields: Mapping[str, Any]) -> str | None:
    """The id of a record, even of one that is otherwise wrong."""
    for name in _ID_FIELDS:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    return None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that gives no record; `number` counts from 1. After one with `ends`, the rest could not be read."""

    number: int
    reason: str
    detail: str
    ends: bool = False


def is_records(path: Path) -> bool:
    """Whether the name says JSON Lines."""
    return path.name.lower().endswith(RECORD_SUFFIXES)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]] | BadLine]:
    """The objects of a JSON Lines file, plain or gzip, with their line numbers; one line in memory at a time."""
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    yield BadLine(number, "too-large", f"longer than {LONGEST_LINE} bytes: split the document")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(LONGEST_LINE)
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    yield BadLine(number, "not-json", f"not JSON: {error.msg} (column {error.colno})")
                    continue
                if isinstance(row, dict):
                    yield number, row
                else:
                    yield BadLine(number, "invalid-record", f"a JSON object is needed, not {type(row).__name__}")
    except (OSError, EOFError, zlib.error) as error:
        reason = "unreadable" if isinstance(error, PermissionError) else "broken"
        yield BadLine(number + 1, reason, f"can't be read on from here: {type(error).__name__}", ends=True)


def count_lines(path: Path) -> int:
    """Lines of a JSON Lines file, for a progress bar; of one that breaks off, those up to there."""
    count = 0
    try:
        with _open(path) as file:
            while part := file.read(1 << 20):
                count += part.count(b"\n")
    except (OSError, EOFError, zlib.error):
        pass
    return count


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")
