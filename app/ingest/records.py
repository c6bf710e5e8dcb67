"""Ready documents: validation of the fields of `POST /v1/documents` and of JSON Lines, and conversion to `Document`."""

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

from app.access import PUBLIC, RESTRICTIONS, AccessChange
from app.errors import DocumentRejected
from app.fields import with_fields
from app.ingest.passages.enrich import normalise_tags
from app.passage import (
    EXTRA_FIELDS,
    Block,
    BlockKind,
    Document,
    ParsedDocument,
    SourceType,
)
from app.values import Identifier, nfc, not_blank, readers, restriction

RECORD_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
LONGEST_LINE = 64 * 1024 * 1024
"""Maximum bytes of a line; the same as the largest body of `POST /v1/documents`."""

_ID_FIELDS = ("document_id", "_id", "id")
_IGNORED = frozenset({"metadata"})
"""Field of BEIR's corpora, mostly empty."""


def parse_timestamp(value: str) -> datetime:
    """Parse ISO 8601 to an aware datetime; without a zone it is UTC, a date without time is midnight.

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


_Restriction = Annotated[list[str], AfterValidator(restriction)]


@with_fields({name: stored.written for name, stored in EXTRA_FIELDS.items()})
@with_fields(dict.fromkeys(RESTRICTIONS, (_Restriction | None, None)))
class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    document_id: Identifier
    text: Annotated[str, Field(min_length=1), AfterValidator(not_blank), AfterValidator(nfc)]
    title: Annotated[str, Field(max_length=1000), AfterValidator(nfc)] | None = None
    source_id: Identifier | None = None
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
    restrictions: AccessChange | None = None,
    whole: bool = False,
    title_is_enough: bool = False,
) -> Document:
    """Return the document described by `fields`; the arguments are defaults, and `tags` are added to its own.

    If neither names readers, the document keeps its stored readers; a new one is public. The same holds for each of
    `acl_1` ... `acl_4`.

    With `title_is_enough` the title of a record without text is its text (public collections have such records). `_id`
    and `id` are accepted as `document_id`, `metadata` is ignored, other unknown fields are rejected.

    Raises:
        DocumentRejected: ``invalid-record``, naming each invalid field, or ``empty`` for one without text.
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
            raise DocumentRejected("text: it is missing", reason="empty")
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
    own = {name: tuple(entries) for name in RESTRICTIONS if (entries := getattr(record, name)) is not None}
    return Document(
        document_id=record.document_id,
        source_id=record.source_id or source_id,
        uri=uri if record.uri is None else record.uri,
        parsed=parsed,
        tags=normalise_tags((*(record.topic_tags or ()), *tags)),
        tenant=tenant,
        acl=(PUBLIC,) if named is None else named,
        keeps_acl=named is None,
        restrictions={**(restrictions or {}), **own},
        timestamp=parse_timestamp(record.timestamp) if record.timestamp else None,
        extra=extra_fields(vars(record)),
        whole=whole,
    )


def extra_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked fields that go to the passages unchanged, if they have a value."""
    found = {name: fields[name] for name in EXTRA_FIELDS if fields.get(name) not in (None, "", [])}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def record_id(fields: Mapping[str, Any]) -> str | None:
    """Return the id of a record, even of an invalid one."""
    for name in _ID_FIELDS:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    return None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line without a valid record; `number` counts from 1. With `ends`, the rest of the file is unreadable."""

    number: int
    reason: str
    detail: str
    ends: bool = False


def is_records(path: Path) -> bool:
    """Return whether the name says JSON Lines."""
    return path.name.lower().endswith(RECORD_SUFFIXES)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]] | BadLine]:
    """Yield the objects of a JSON Lines file, plain or gzip, with their line numbers; one line in memory at a time."""
    number = 0
    try:
        with open_unpacked(path) as file:
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
        yield BadLine(number + 1, reason, f"the rest can't be read: {type(error).__name__}", ends=True)


def count_lines(path: Path) -> int:
    """Return the number of lines of a JSON Lines file for a progress bar; of a truncated file, of its readable part."""
    count = 0
    try:
        with open_unpacked(path) as file:
            while part := file.read(1 << 20):
                count += part.count(b"\n")
    except (OSError, EOFError, zlib.error):
        pass
    return count


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file of lines, plain or gzip. Raises OSError."""
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")
