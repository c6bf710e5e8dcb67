"""Detection of tables among the lines of a column: consecutive lines of several aligned cells."""

from __future__ import annotations

from collections import Counter
from statistics import median

from app.ingest.formats.pdf_layout import Line
from app.ingest.formats.pdf_page import Piece
from app.ingest.formats.pdf_style import LEADER, MARK

_STEP = 4.0


def table_rows(lines: list[Line]) -> dict[int, list[str]]:
    """Return index of a line -> its cells, for the lines of tables; [] for lines merged into the row above."""
    found: dict[int, list[str]] = {}
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and _is_tabular(lines, end, start):
            end += 1
        rows = lines[start:end]
        if sum(len(row.cells) > 1 for row in rows) >= 2 and _are_aligned(rows):
            found |= _rows_of(rows, start)
        start = max(end, start + 1)
    return found


def _is_tabular(lines: list[Line], index: int, start: int) -> bool:
    """Return whether a line can belong to a table that begins at `start`: cells, or further lines of a cell."""
    line = lines[index]
    if any(LEADER.search(cell.text) for cell in line.cells) or MARK.fullmatch(line.cells[0].text.strip()):
        return False
    if index > start and line.y0 - lines[index - 1].y0 > 4 * line.size:
        return False
    if len(line.cells) > 1:
        return True
    if index == start or index + 1 >= len(lines):
        return False
    above = next((other for other in reversed(lines[start:index]) if len(other.cells) > 1), None)
    narrow = line.cells[0].width < 0.5 * (line.right - line.left)
    return above is not None and narrow and len(lines[index + 1].cells) > 1 and not line.cells[0].bold


def _are_aligned(rows: list[Line]) -> bool:
    """Return whether the cells form columns: most begin, end or centre where a cell of another row does."""
    many = [row for row in rows if len(row.cells) > 1]
    wide = any(len(row.cells) > 2 for row in many)
    if not wide and median(max(c.width for c in r.cells) / max(r.right - r.left, 1) for r in many) > 0.75:
        return False
    edges: Counter[tuple[str, int]] = Counter()
    for row in many:
        edges.update({edge for cell in row.cells for edge in _edges(cell)})
    hits = total = 0
    for row in many:
        own = Counter({edge for cell in row.cells for edge in _edges(cell)})
        for cell in row.cells:
            total += 1
            hits += any(
                edges[side, place + off] > own[side, place + off] for side, place in _edges(cell) for off in (-1, 0, 1)
            )
    return hits >= (0.4 if wide else 0.7) * total


def _edges(cell: Piece) -> tuple[tuple[str, int], ...]:
    """Return the start, end and middle of a cell, in steps of `_STEP` points."""
    places = (("left", cell.x0), ("right", cell.x1), ("middle", (cell.x0 + cell.x1) / 2))
    return tuple((side, round(x / _STEP)) for side, x in places)


def _rows_of(rows: list[Line], start: int) -> dict[int, list[str]]:
    """Return the cells of each row; a line without a first cell close below a row continues that row's cells."""
    found: dict[int, list[str]] = {}
    owner: list[Piece] = []
    first = min((row.cells[0] for row in rows), key=lambda cell: cell.x0)
    at = start
    for offset, row in enumerate(rows):
        index = start + offset
        goes_on = (
            bool(owner)
            and row.y0 - rows[offset - 1].y0 < 1.45 * row.size
            and row.cells[0].x0 > first.x1
            and len(row.cells) < len(owner)
        )
        columns = [_column(cell, owner) for cell in row.cells] if goes_on else []
        if goes_on and all(column is not None for column in columns):
            for cell, column in zip(row.cells, columns, strict=True):
                if column is not None:
                    found[at][column] += f" {cell.text}"
            found[index] = []
            continue
        found[index] = [cell.text for cell in row.cells]
        owner, at = row.cells, index
    return found


def _column(cell: Piece, owner: list[Piece]) -> int | None:
    overlaps = [min(cell.x1, other.x1) - max(cell.x0, other.x0) for other in owner]
    best = max(range(len(owner)), key=overlaps.__getitem__)
    return best if overlaps[best] > 0 else None
