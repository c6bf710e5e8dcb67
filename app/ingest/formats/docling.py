"""Blocks of docling's documents. Its backends are called one by one, since its converter would import torch."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from docling.datamodel.base_models import InputFormat
from docling.datamodel.document import InputDocument
from docling.exceptions import DocumentLoadError
from docling_core.types.doc import ContentLayer, DoclingDocument
from docling_core.types.doc.document import (
    CodeItem,
    GroupItem,
    ListItem,
    PictureItem,
    SectionHeaderItem,
    TableItem,
    TextItem,
    TitleItem,
)

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE
from app.ingest.formats.clean import clean, clean_code
from app.passage import Block, BlockKind

_DAMAGE = (*DAMAGE, DocumentLoadError, RuntimeError, ArithmeticError, AssertionError, OSError)
_READ = {ContentLayer.BODY, ContentLayer.NOTES}

_SHEET, _SLIDE = "sheet: ", "slide-"
"""Beginnings of the names of groups that are a sheet, or a slide (numbered from 0)."""
_SLIDE_NAME = re.compile(r"(?i)(page|slide|folie|diapo\w*)[ -]?\d+")
"""Names that Impress gives slides without a title."""


def convert(data: io.BytesIO, suffix: str, format: InputFormat, backend: type, options: Any = None) -> DoclingDocument:
    """Return docling's document of a checked file.

    Raises:
        DocumentRejected: ``broken``.
    """
    try:
        given = InputDocument(data, format, backend, filename=f"file{suffix}", backend_options=options)
        if not given.valid:
            raise DocumentLoadError(suffix)
        document: DoclingDocument = given._backend.convert()
        return document
    except _DAMAGE as error:
        raise DocumentRejected(
            f"the file is damaged ({type(error).__name__}): open it and save it again", reason="broken"
        ) from error


def blocks_of(document: DoclingDocument, *, paged: bool) -> Iterator[Block]:
    """Yield the blocks that a reader of the document sees, and notes; `paged`: with the numbers of pages."""
    sheet: Block | None = None
    slide: int | None = None
    after_table = False
    table: int | None = None
    for item, depth in document.iterate_items(with_groups=True, included_content_layers=_READ):
        if table is not None and depth > table:
            continue  # a cell's paragraphs: the cell has their text
        table = depth if isinstance(item, TableItem) else None
        if isinstance(item, GroupItem):
            if item.name.startswith(_SHEET):
                sheet, after_table = Block(BlockKind.HEADING, clean(item.name[len(_SHEET) :]), level=1), False
                yield sheet
            elif found := re.fullmatch(rf"{_SLIDE}(\d+)", item.name):
                slide = int(found[1]) + 1
            continue
        page = (item.prov[0].page_no if getattr(item, "prov", None) else slide) if paged else None
        if isinstance(item, TableItem):
            if sheet and after_table:
                yield sheet  # the next table has a header of its own
            after_table = True
            for row in item.data.grid:
                cells = [clean(cell.text) for cell in row]
                if any(cells):
                    yield Block(BlockKind.TABLE_ROW, " | ".join(cells).strip(), page)
        elif isinstance(item, TextItem) and (block := _text(item, page)):
            yield block


def _text(item: TextItem, page: int | None) -> Block | None:
    if isinstance(item, CodeItem):
        text = clean_code(item.text)
        return Block(BlockKind.CODE, text, page) if text else None
    text = clean(item.text)
    if not text or (isinstance(item, TitleItem) and _SLIDE_NAME.fullmatch(text)):
        return None
    if isinstance(item, TitleItem | SectionHeaderItem):
        level = 1 if isinstance(item, TitleItem) else min(6, item.level)
        return Block(BlockKind.HEADING, text, page, level)
    if isinstance(item, ListItem):
        return Block(BlockKind.LIST_ITEM, clean(f"{item.marker if item.enumerated else ''} {text}"), page)
    return Block(BlockKind.NOTES if item.content_layer is ContentLayer.NOTES else BlockKind.PARAGRAPH, text, page)


def left_out(document: DoclingDocument) -> tuple[str, ...]:
    """Name what a document has and `blocks_of` leaves out."""
    items = [item for item, _ in document.iterate_items(included_content_layers=set(ContentLayer))]
    pictures = sum(isinstance(item, PictureItem) for item in items)
    layers = [getattr(item, "content_layer", None) for item in items]
    found = {
        "pictures not read": pictures,
        "hidden parts left out": layers.count(ContentLayer.INVISIBLE),
        "parts of page headers and footers left out": layers.count(ContentLayer.FURNITURE),
    }
    return tuple(f"{count:,} {what}" for what, count in found.items() if count)
