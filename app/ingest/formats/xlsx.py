"""XLSX reader, by openpyxl: sheets as tables under their names, values as Excel shows them. Nothing is calculated."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import ParseError

import openpyxl
from openpyxl.utils.cell import range_boundaries
from openpyxl.utils.exceptions import InvalidFileException

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE, open_office
from app.ingest.formats.clean import clean, sensible_title, title_from_name
from app.ingest.formats.limits import MAX_SHEETS, Limits
from app.ingest.formats.number_format import show
from app.ingest.formats.rows import Rows
from app.passage import Block, ParsedDocument, SourceType

_DAMAGE = (*DAMAGE, InvalidFileException, ParseError, EOFError, OSError, ArithmeticError)
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^<>]*?ref="([A-Z]+\d+:[A-Z]+\d+)"')
_MOST_SPANNED = 20_000
"""Maximum rows of a sheet that merged cells span; with more, they are read as Excel stores them: once."""
_WITHOUT_VALUE = re.compile(rb"(?:</(?:\w+:)?f>|<(?:\w+:)?f(?:\s[^<>]*)?/>)\s*(?:<v\s*/>|<v></v>)?\s*</(?:\w+:)?c>")
_NOT_READ = {"xl/media/": "picture", "xl/charts/chart": "chart", "xl/comments": "sheet with comments"}


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse the visible sheets; formulas are never evaluated, their stored results are read.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``, ``empty``.
    """
    container = open_office(data, limits)
    rows = Rows()
    try:
        with zipfile.ZipFile(container) as parts:
            warnings = list(_not_read(parts))
        book = openpyxl.load_workbook(container, read_only=True, data_only=True, keep_links=False)
        with closing(book):
            blocks = list(_sheets(book, rows, warnings))
            title, modified = book.properties.title, book.properties.modified
    except _DAMAGE as error:
        raise DocumentRejected(
            f"the workbook is damaged ({type(error).__name__}): open it in Excel and save it again", reason="broken"
        ) from error
    if rows.left_out:
        warnings.append(f"{rows.left_out:,} rows left out: more than is read of one workbook; split it")
    if not blocks:
        raise DocumentRejected(
            f"the workbook contains no text{': ' if warnings else ''}{'; '.join(warnings)}", reason="empty"
        )
    return ParsedDocument(
        title=sensible_title(title) or title_from_name(name),
        blocks=tuple(blocks),
        source_type=SourceType.XLSX,
        timestamp=modified.replace(tzinfo=UTC) if isinstance(modified, datetime) else None,
        warnings=tuple(warnings),
    )


def _not_read(parts: zipfile.ZipFile) -> Iterator[str]:
    names = parts.namelist()
    for beginning, what in _NOT_READ.items():
        if count := sum(name.startswith(beginning) for name in names):
            yield f"{count:,} {what}{'s' if count > 1 and what != 'sheet with comments' else ''} not read"
    empty = sum(
        len(_WITHOUT_VALUE.findall(parts.read(name))) for name in names if name.startswith("xl/worksheets/sheet")
    )
    if empty:
        yield f"{empty:,} formulas without a stored result: open the file in Excel or LibreOffice and save it"


def _sheets(book: Any, rows: Rows, warnings: list[str]) -> Iterator[Block]:
    hidden = [sheet.title for sheet in book.worksheets if sheet.sheet_state != "visible"]
    if hidden:
        names = ", ".join(clean(title) for title in hidden[:5])
        warnings.append(f"{len(hidden):,} hidden sheets left out: {names}{', ...' if len(hidden) > 5 else ''}")
    visible = [(page, sheet) for page, sheet in enumerate(book.worksheets, 1) if sheet.sheet_state == "visible"]
    if len(visible) > MAX_SHEETS:
        warnings.append(f"{len(visible) - MAX_SHEETS:,} of {len(visible):,} sheets left out: split the workbook")
    for page, sheet in visible[:MAX_SHEETS]:
        sheet.reset_dimensions()  # the stated ones may be wrong, or a million empty rows
        yield from rows.blocks(_rows(sheet, _spanned(book, sheet)), clean(sheet.title), page)


def _rows(sheet: Any, spanned: dict[tuple[int, int], tuple[int, int]]) -> Iterator[list[str]]:
    """Yield the rows as shown; a merged cell's value stands in each of its rows."""
    origins = set(spanned.values())
    values: dict[tuple[int, int], str] = {}
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [show(cell.value, cell.number_format or "") if cell.value is not None else "" for cell in row]
        if spanned:
            for column, text in enumerate(cells, 1):
                if (number, column) in origins:
                    values[number, column] = text
                elif origin := spanned.get((number, column)):
                    cells[column - 1] = values.get(origin, "")
        yield cells


def _spanned(book: Any, sheet: Any) -> dict[tuple[int, int], tuple[int, int]]:
    """Return (row, column) of the cells below the corner of a merged one, and those of the corner."""
    spanned: dict[tuple[int, int], tuple[int, int]] = {}
    xml = book._archive.read(sheet._worksheet_path)  # openpyxl's read-only sheets don't give them
    for reference in _MERGED.findall(xml):
        left, top, _, bottom = range_boundaries(reference.decode())
        if len(spanned) + bottom - top > _MOST_SPANNED:
            return {}
        spanned |= {(row, left): (top, left) for row in range(top + 1, bottom + 1)}
    return spanned
