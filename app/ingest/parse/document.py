"""One file, start to end: read it, see what it is, give it to its parser, check what came out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from app.errors import DocumentRejected
from app.ingest.parse.detect import detect
from app.ingest.parse.files import read_file
from app.ingest.parse.limits import MAX_BLOCKS, MAX_TEXT, MAX_TITLE, Limits
from app.passage import ParsedDocument, SourceType

_Parser = Callable[[bytes, str, Limits], ParsedDocument]

_PARSERS = {
    SourceType.PDF: "pdf",
    SourceType.DOCX: "docx",
    SourceType.PPTX: "pptx",
    SourceType.HTML: "html",
    SourceType.MARKDOWN: "markdown",
    SourceType.TEXT: "plaintext",
}
"""Modules of this package, each with a function `parse`. Imported when a file needs it: a worker starts in no time."""


def detect_type(path: Path, *, limits: Limits | None = None) -> SourceType:
    """What kind of document a file is, by its content first and its extension second.

    Raises:
        DocumentRejected: ``unsupported-type``, or one of the reasons for which a file can't even be opened.
    """
    return detect(read_file(path, limits or Limits()), path.name)


def parse_file(path: Path, limits: Limits | None = None, handle: int | None = None) -> ParsedDocument:
    """Parse a file in this process: no bound on memory and time (`ParserPool` has them).

    `handle`: a descriptor of the content, where `path` only names it.

    Raises:
        DocumentRejected: `reason` says why, as a code of docs/formats.md.
    """
    limits = limits or Limits()
    data = read_file(path, limits, handle)
    parse: _Parser = importlib.import_module(f"app.ingest.parse.{_PARSERS[detect(data, path.name)]}").parse
    document = parse(data, path.stem, limits)
    if sum(len(block.text) for block in document.blocks) > MAX_TEXT:
        raise DocumentRejected(f"more than {MAX_TEXT:,} characters of text: split the file", reason="too-large")
    if len(document.blocks) > MAX_BLOCKS:
        raise DocumentRejected(f"more than {MAX_BLOCKS:,} paragraphs: split the file", reason="too-large")
    return replace(document, title=document.title[:MAX_TITLE].rstrip(), timestamp=_possible(document.timestamp))


def _possible(timestamp: datetime | None) -> datetime | None:
    """None for a time that in UTC is before the year 1 or after 9999."""
    try:
        return timestamp if timestamp and timestamp.astimezone(UTC) else None
    except OverflowError:
        return None
