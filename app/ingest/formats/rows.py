"""Rows of sheets as blocks, up to a bound on rows and text of a document."""

from __future__ import annotations

from collections.abc import Iterator

from app.ingest.formats.clean import clean
from app.ingest.formats.limits import MAX_ROWS, MAX_TEXT
from app.passage import Block, BlockKind

_GAP = 1
"""Blank rows inside a table; more of them end it."""


class Rows:
    """Makes blocks of rows. A document has one, whose bounds hold for all its sheets.

    `left_out` counts rows with content that no longer fitted.
    """

    def __init__(self, *, rows: int = MAX_ROWS, text: int = MAX_TEXT // 4) -> None:
        self._rows = rows
        self._text = text
        self.left_out = 0

    def blocks(self, rows: Iterator[list[str]], heading: str = "", page: int | None = None) -> Iterator[Block]:
        """Yield a sheet's rows; a lone cell above a table is a paragraph, and so never the header that is repeated.

        A table after blank rows is one of its own. `heading`, the sheet's name, stands above each.
        """
        blank, begun, first = 0, False, 0
        for row in rows:
            if self._rows < 1:
                self.left_out += any(row)
                continue
            cells = [clean(cell) for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if not cells:
                blank += 1
                continue
            if heading and (blank > _GAP if begun else not first):
                yield Block(BlockKind.HEADING, heading, page, 1)
            begun, blank = begun and blank <= _GAP, 0
            lone = sum(map(bool, cells)) == 1
            if not begun:
                first = next(index for index, cell in enumerate(cells) if cell) + 1
            text = " | ".join(cells[first - 1 :] if not any(cells[: first - 1]) else cells).strip()
            begun = begun or not lone
            if self._text < len(text):
                self.left_out += 1
                continue
            self._rows -= 1
            self._text -= len(text)
            yield Block(BlockKind.TABLE_ROW if begun else BlockKind.PARAGRAPH, text, page)
