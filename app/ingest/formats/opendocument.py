"""OpenDocument readers (ODT, ODS, ODP), by docling."""

from __future__ import annotations

import html
import re
import zipfile
from typing import Any

from docling.backend.opendocument_backend import OdpDocumentBackend, OdsDocumentBackend, OdtDocumentBackend
from docling.datamodel.backend_options import OdsBackendOptions
from docling.datamodel.base_models import InputFormat

from app.errors import DocumentRejected
from app.ingest.formats.archive import open_office
from app.ingest.formats.clean import sensible_title, title_from_name
from app.ingest.formats.docling import blocks_of, convert, left_out
from app.ingest.formats.html import parse_date
from app.ingest.formats.limits import Limits
from app.passage import BlockKind, ParsedDocument, SourceType

_KEPT = re.compile(r"(?i)\.(xml|rdf)$|^mimetype$")

_CELL = re.compile(rb"<table:table-cell\s[^<>]*+(?<!/)>(?=<text:p)")
_VALUE = re.compile(rb'\s(?:office|calcext):(?:value|value-type|\w+-value)="[^"]*"')


def parse_odt(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse a text: headings, paragraphs, lists, tables, footnotes.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``, ``empty``, ``no-text`` (pictures only).
    """
    return _parse(data, name, limits, SourceType.ODT, (InputFormat.ODT, OdtDocumentBackend))


def parse_ods(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse visible sheets as shown, as tables under their names; nothing is calculated. Raises as `parse_odt`."""
    options = OdsBackendOptions(gap_tolerance=1)
    return _parse(data, name, limits, SourceType.ODS, (InputFormat.ODS, OdsDocumentBackend, options))


def parse_odp(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse visible slides, each a page, and their notes. Raises as `parse_odt`."""
    return _parse(data, name, limits, SourceType.ODP, (InputFormat.ODP, OdpDocumentBackend))


def _parse(data: bytes, name: str, limits: Limits, kind: SourceType, backend: tuple[Any, ...]) -> ParsedDocument:
    container = open_office(data, limits, _KEPT, _without_values)
    with zipfile.ZipFile(container) as parts:
        manifest, described = (_read(parts, part) for part in ("META-INF/manifest.xml", "meta.xml"))
    if b"encryption-data" in manifest:
        raise DocumentRejected("the file needs a password: save it without one", reason="encrypted")
    document = convert(container, f".{kind.value}", *backend)
    blocks = tuple(blocks_of(document, paged=kind is not SourceType.ODT))
    warnings = left_out(document)
    if not blocks:
        pictures = any("pictures" in warning for warning in warnings)
        raise DocumentRejected("the file contains no text", reason="no-text" if pictures else "empty")
    heading = next((block.text for block in blocks[:20] if block.kind is BlockKind.HEADING), "")
    if kind is SourceType.ODS:
        heading = ""  # a sheet's name
    return ParsedDocument(
        title=sensible_title(_described(described, "title")) or heading or title_from_name(name),
        blocks=blocks,
        source_type=kind,
        timestamp=parse_date(_described(described, "date")),
        warnings=warnings,
    )


def _without_values(name: str, xml: bytes) -> bytes:
    """Leave of cells with a shown text only that: docling would read the value, 0.125 for "12.5 %"."""
    return _CELL.sub(lambda cell: _VALUE.sub(b"", cell[0]), xml) if name == "content.xml" else xml


def _read(parts: zipfile.ZipFile, name: str) -> bytes:
    return parts.read(name) if name in parts.namelist() else b""


def _described(meta: bytes, name: str) -> str:
    found = re.search(rb"<dc:%b>([^<>]{1,400})</dc:%b>" % (name.encode(), name.encode()), meta)
    return html.unescape(found[1].decode("utf-8", "replace")) if found else ""
