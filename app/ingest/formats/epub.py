"""EPUB reader: the chapters of a book in their order, each read as a page of HTML."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

from lxml import etree

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE, read_parts
from app.ingest.formats.clean import clean, title_from_name
from app.ingest.formats.html import extract, parse_date, read_html
from app.ingest.formats.limits import MAX_BLOCKS, Limits
from app.ingest.formats.plaintext import decode
from app.passage import Block, ParsedDocument, SourceType

_KEPT = re.compile(r"(?i)\.(xml|opf|x?html?)$")
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse the chapters that the book names as its reading order.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``, ``empty``, ``no-text`` (pictures only).
    """
    parts = dict(read_parts(data, limits, _KEPT))
    if any(part.lower().endswith("encryption.xml") and b"EncryptedKey" in xml for part, xml in parts.items()):
        raise DocumentRejected(
            "the book is protected: it can only be read with its seller's software", reason="encrypted"
        )
    try:
        package = _package(parts)
        book = etree.fromstring(parts[package], _PARSER)
    except DAMAGE as error:
        raise DocumentRejected("the book has no readable table of its parts", reason="broken") from error
    chapters = _chapters(book, posixpath.dirname(package))
    blocks: list[Block] = []
    missing = 0
    for chapter in chapters:
        found = _blocks(parts.get(chapter, b""))
        missing += found is None
        if len(blocks) <= MAX_BLOCKS:
            blocks += found or []
    pictures = sum(bool(re.search(r"(?i)\.(png|jpe?g|gif|svg|webp)$", part)) for part in parts)
    if not blocks:
        raise DocumentRejected("the book contains no text", reason="no-text" if pictures else "empty")
    warnings = []
    if missing:
        warnings.append(f"{missing:,} chapters that the book names are not in it, or are no HTML")
    if pictures:
        warnings.append(f"{pictures:,} picture{'s' if pictures > 1 else ''} not read")
    return ParsedDocument(
        title=_metadata(book, "title") or title_from_name(name),
        blocks=tuple(blocks),
        source_type=SourceType.EPUB,
        timestamp=parse_date(_metadata(book, "date")),
        warnings=tuple(warnings),
    )


def _package(parts: dict[str, bytes]) -> str:
    container = etree.fromstring(parts["META-INF/container.xml"], _PARSER)
    named = [str(root.get("full-path") or "") for root in container.iter("{*}rootfile")]
    return named[0]


def _chapters(book: etree._Element, folder: str) -> list[str]:
    """Return the names of the chapters in the container, each once."""
    items = {item.get("id"): item.get("href") or "" for item in book.iter("{*}item")}
    spine = (items.get(reference.get("idref"), "") for reference in book.iter("{*}itemref"))
    return list(dict.fromkeys(posixpath.normpath(posixpath.join(folder, unquote(href))) for href in spine if href))


def _blocks(page: bytes) -> list[Block] | None:
    """Return the blocks of a chapter, none for a cover without text; None if it is missing or no text."""
    try:
        return list(extract(read_html(decode(page)))) if page else None
    except DocumentRejected as error:
        return [] if error.reason == "empty" else None


def _metadata(book: etree._Element, name: str) -> str:
    found = next(book.iter(f"{{http://purl.org/dc/elements/1.1/}}{name}"), None)
    return clean(found.text or "") if found is not None else ""
