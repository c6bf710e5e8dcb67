"""Detection of tables among the lines of a column: consecutive lines of several aligned cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import median

from app.ingest.formats.pdf_layout import Line
from app.ingest.formats.pdf_page import Piece
from app.ingest.formats.pdf_style import LEADER, MARK

_STEP = 4.0
_MOST_COLUMNS = 16
"""Maximum columns for which blank cells are kept."""
_CURRENCIES = ("$", "€", "£", "¥", "US$", "USD", "EUR", "CHF")


def table_rows(lines: list[Line]) -> dict[int, list[str]]:
    """Return index of a line -> its cells, for the lines of tables; [] for lines merged into the row above. Lines of
    a cell are divided by line breaks.
    """
    found = {index: list(line.cells[0].row) for index, line in enumerate(lines) if line.cells[0].row}
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and _is_tabular(lines, end, start):
            end += 1
        rows = lines[start:end]
        if sum(len(row.cells) > 1 for row in rows) >= 2 and _are_aligned(rows):
            found |= _prose_columns(rows, start) or _rows_of(rows, start)
        start = max(end, start + 1)
    return found


def _is_tabular(lines: list[Line], index: int, start: int) -> bool:
    """Return whether a line can belong to a table that begins at `start`: cells, or further lines of a cell."""
    line = lines[index]
    if line.cells[0].row is not None:
        return False
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
    owners: dict[int, list[Piece]] = {}
    owner: list[Piece] = []
    cells_of = [_join_signs(row.cells) for row in rows]
    first = min((row.cells[0] for row in rows), key=lambda cell: cell.x0)
    at = start
    for offset, row in enumerate(rows):
        index = start + offset
        goes_on = (
            bool(owner)
            and row.y0 - rows[offset - 1].y0 < 1.45 * row.size
            and row.cells[0].x0 > first.x1
            and len(cells_of[offset]) < len(owner)
        )
        columns = [_column(cell, owner) for cell in cells_of[offset]] if goes_on else []
        if goes_on and all(column is not None for column in columns):
            for cell, column in zip(cells_of[offset], columns, strict=True):
                if column is not None:
                    found[at][column] += f"\n{cell.text}"
            found[index] = []
            continue
        found[index] = [cell.text for cell in cells_of[offset]]
        owner, at = cells_of[offset], index
        owners[index] = owner
    _add_blanks(found, owners)
    return found


def _prose_columns(rows: list[Line], start: int) -> dict[int, list[str]]:
    """Return the text of two short columns of one sentence, left before right; nothing if the lines are a table's."""
    if any(len(row.cells) != 2 for row in rows):
        return {}
    left, right = ([row.cells[side].text for row in rows] for side in (0, 1))
    goes_on = all(text[:1].islower() for text in (*left[1:], *right)) and not left[-1].rstrip().endswith((".", ":"))
    if not goes_on or min(len(left[0]), len(right[0])) < 20:
        return {}
    return {start: ["\n".join(left + right)]} | {start + offset: [] for offset in range(1, len(rows))}


def _join_signs(cells: list[Piece]) -> list[Piece]:
    """Join a currency's sign to the amount after it, and a bracket or percent sign to the amount before it."""
    joined: list[Piece] = []
    for cell in cells:
        last = joined[-1] if joined else None
        sign = last is not None and last.text.strip() in _CURRENCIES and cell.text[:1] in "0123456789(—–-"
        closes = last is not None and cell.text.strip() in (")", "%", ")%") and cell.x0 - last.x1 < 2 * cell.size
        if last is not None and (sign or closes):
            text = last.text + (" " if sign else "") + cell.text
            joined[-1] = replace(last, text=text, x1=cell.x1, gaps=())
        else:
            joined.append(cell)
    return joined


def _add_blanks(found: dict[int, list[str]], owners: dict[int, list[Piece]]) -> None:
    """Give rows that lack cells blank ones, where all of their cells stand below or above columns of full rows."""
    most = max(len(cells) for cells in owners.values())
    full = [cells for cells in owners.values() if len(cells) == most]
    columns = [(min(c.x0 for c in column), max(c.x1 for c in column)) for column in zip(*full, strict=True)]
    if not 3 <= most <= _MOST_COLUMNS or any(a[1] >= b[0] for a, b in pairwise(columns)):
        return
    for index, cells in owners.items():
        places = [[i for i, (x0, x1) in enumerate(columns) if cell.x0 < x1 and cell.x1 > x0] for cell in cells]
        if not 1 < len(cells) < most or any(len(place) != 1 for place in places):
            continue
        if len({place[0] for place in places}) == len(cells):
            texts = found[index]
            found[index] = [""] * most
            for place, text in zip(places, texts, strict=True):
                found[index][place[0]] = text


def _column(cell: Piece, owner: list[Piece]) -> int | None:
    overlaps = [min(cell.x1, other.x1) - max(cell.x0, other.x0) for other in owner]
    best = max(range(len(owner)), key=overlaps.__getitem__)
    return best if overlaps[best] > 0 else None
