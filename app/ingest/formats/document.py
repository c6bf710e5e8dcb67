"""Parsing of one file: read it, detect its format, parse it, check the result."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from app.errors import DocumentRejected
from app.ingest.formats.bounded_file import read_file
from app.ingest.formats.detect import detect
from app.ingest.formats.limits import MAX_BLOCKS, MAX_TEXT, MAX_TITLE, Limits
from app.passage import ParsedDocument


def parse_file(path: Path, limits: Limits | None = None, handle: int | None = None) -> ParsedDocument:
    """Parse a file in this process, without limits on memory and time (`ParserPool` has them).

    `handle` is a descriptor of the content; `path` is then only its name.

    Raises:
        DocumentRejected: `reason` is a code of docs/formats.md.
    """
    limits = limits or Limits()
    data = read_file(path, limits, handle)
    document = detect(data, path.name).load_reader()(data, path.stem, limits)
    if sum(len(block.text) for block in document.blocks) > MAX_TEXT:
        raise DocumentRejected(f"more than {MAX_TEXT:,} characters of text: split the file", reason="too-large")
    if len(document.blocks) > MAX_BLOCKS:
        raise DocumentRejected(f"more than {MAX_BLOCKS:,} paragraphs: split the file", reason="too-large")
    return replace(document, title=document.title[:MAX_TITLE].rstrip(), timestamp=_representable(document.timestamp))


def _representable(timestamp: datetime | None) -> datetime | None:
    """Return None for a time that in UTC is before the year 1 or after 9999."""
    try:
        return timestamp if timestamp and timestamp.astimezone(UTC) else None
    except OverflowError:
        return None
