"""PDF parser on PDFium (pypdfium2): the text layer only, no OCR."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pypdfium2 as pdfium
from pypdfium2 import raw

from app.errors import DocumentRejected
from app.ingest.formats.clean import clean, sensible_title, title_from_name
from app.ingest.formats.limits import MAX_TEXT, Limits
from app.ingest.formats.pdf_blocks import BlockBuilder
from app.ingest.formats.pdf_furniture import remove_furniture
from app.ingest.formats.pdf_layout import Line, lines_of
from app.ingest.formats.pdf_page import Page, read_page
from app.ingest.formats.pdf_style import key, style_of
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_DATE = re.compile(r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?\s*(?:(Z)|([+-])(\d\d)'?(\d\d)?'?)?", re.ASCII)
_OPEN_ERRORS = {
    raw.FPDF_ERR_PASSWORD: ("encrypted", "the PDF needs a password: save it without one"),
    raw.FPDF_ERR_SECURITY: ("encrypted", "the PDF uses an unknown encryption: save it without"),
}
_MAX_BOOKMARKS = 5_000


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse text in reading order with pages and headings, without running heads and page numbers.

    Raises:
        DocumentRejected: ``encrypted``, ``broken``, ``empty`` (no pages), ``no-text`` (pictures only), ``too-large``.
    """
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        reason, detail = _OPEN_ERRORS.get(
            error.err_code or 0, ("broken", "the PDF is damaged and can't be opened: print or save it again")
        )
        raise DocumentRejected(detail, reason=reason) from error
    with document:
        return _parse(document, name)


def _parse(document: pdfium.PdfDocument, name: str) -> ParsedDocument:
    if len(document) == 0:
        raise DocumentRejected("the PDF has no pages", reason="empty")
    if document.get_formtype() != raw.FORMTYPE_NONE:
        document.init_forms()
    pages: list[tuple[Page, list[Line]]] = []
    unseen: dict[int, int] = {}
    damaged: list[int] = []
    silent: list[int] = []
    size = 0
    for index in range(len(document)):
        try:
            page = read_page(document, index)
        except pdfium.PdfiumError:
            damaged.append(index + 1)
            continue
        if page.unseen:
            unseen[page.number] = page.unseen
        if not page.pieces:
            silent.append(index + 1)
            continue
        size += sum(len(piece.text) for piece in page.pieces)
        if size > MAX_TEXT:
            raise DocumentRejected(f"more than {MAX_TEXT:,} characters of text: split the file", reason="too-large")
        pages.append((page, lines_of(page.pieces, page.rules)))
        page.pieces, page.rules = [], []
    if not pages:
        raise _no_text(len(document), damaged)
    outline = _outline(document)
    pages = remove_furniture(pages)
    builder = BlockBuilder(style_of(pages, outline))
    for page, lines in pages:
        builder.page(page, lines)
    blocks = builder.finish()
    if not any(ch.isalnum() for block in blocks for ch in block.text):
        raise _no_text(len(document), damaged)
    return ParsedDocument(
        title=_title(document, pages[0], blocks) or title_from_name(name),
        blocks=tuple(blocks),
        source_type=SourceType.PDF,
        timestamp=_date(document.get_metadata_value("ModDate")) or _date(document.get_metadata_value("CreationDate")),
        tags=_keywords(document.get_metadata_value("Keywords")),
        warnings=tuple(_warnings(len(document), silent, damaged, unseen)),
    )


def _warnings(pages: int, silent: list[int], damaged: list[int], unseen: dict[int, int]) -> Iterator[str]:
    """Yield what was left out; `unseen` is the number of a page -> its characters that nobody sees."""
    if silent:
        yield f"no text on {_pages(silent)} of {pages}: scanned or drawn"
    if damaged:
        yield f"damaged, left out: {_pages(damaged)} of {pages}"
    if unseen:
        yield (
            "text that nobody sees left out (without ink, white on white, or outside the page): "
            f"{sum(unseen.values()):,} characters on {_pages(list(unseen))} of {pages}"
        )


def _no_text(pages: int, damaged: list[int]) -> DocumentRejected:
    if len(damaged) == pages:
        return DocumentRejected("none of the PDF's pages can be loaded: print or save it again", reason="broken")
    return DocumentRejected(
        f"no text on any of its {pages} pages: it is scanned or drawn; run it through OCR (for example ocrmypdf)",
        reason="no-text",
    )


def _pages(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
    return f"page{'s' if len(numbers) > 1 else ''} {shown}"


def _outline(document: pdfium.PdfDocument) -> dict[str, int]:
    """Return the texts of the bookmarks -> their depth from 1."""
    found: dict[str, int] = {}
    for number, bookmark in enumerate(document.get_toc(max_depth=6)):
        if number >= _MAX_BOOKMARKS:
            break
        if text := key(clean(bookmark.get_title())):
            found.setdefault(text, bookmark.level + 1)
    return found


def _title(document: pdfium.PdfDocument, first: tuple[Page, list[Line]], blocks: list[Block]) -> str:
    """Return the metadata's title if it looks like one; else the largest heading of the first page with text."""
    if text := sensible_title(document.get_metadata_value("Title")):
        return text
    page, lines = first
    headings = [b for b in blocks if b.kind is BlockKind.HEADING and b.page == page.number and len(b.text) > 3]
    sizes = {key(line.text): round(line.size) for line in lines}

    def size(block: Block) -> float:
        """Return the size of the block's largest line: a title of two lines is one block."""
        whole = key(block.text)
        return max((s for text, s in sizes.items() if text and (text in whole or whole in text)), default=0.0)

    best = max(headings, key=size, default=None)
    return sensible_title(best.text) if best else ""


def _keywords(text: str) -> tuple[str, ...]:
    words = (clean(word) for word in re.split("[,;]", text))
    return tuple(dict.fromkeys(word for word in words if word and len(word) <= 64))


def _date(text: str) -> datetime | None:
    """Parse a PDF date, ``D:YYYYMMDDHHmmSS+HH'mm'``; UTC if it has no zone. None for an impossible date."""
    found = _DATE.match(text.strip())
    if not found:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in found.groups()[:6])
    zone = UTC
    try:
        if found[8]:
            offset = timedelta(hours=int(found[9]), minutes=int(found[10] or 0))
            zone = timezone(offset if found[8] == "+" else -offset)
        date = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0, tzinfo=zone)
        return date.astimezone(UTC) if 1980 <= date.year <= 2200 else None
    except (ValueError, OverflowError):
        return None
