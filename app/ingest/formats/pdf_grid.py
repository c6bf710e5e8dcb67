"""Tables with ruling lines: the lines say which text is a cell, however it wraps, and which cells are blank or span."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from app.ingest.formats.pdf_columns import split
from app.ingest.formats.pdf_objects import Box
from app.ingest.formats.pdf_page import Piece

_TOUCH = 3.0
"""Distance in points in which lines touch, and in which two lines are one."""
_LONGEST_CELL = 1_000
"""Maximum characters of a cell; a box with more is a frame around text."""
_LEAST_FILLED = 0.4
"""Minimum share of cells with text; a chart's grid has fewer."""
_MOST_CELLS = 4_000
_VALUE = re.compile(r"[\W_]*\d[\d\W_]*[^\W\d_]{0,3}\W*")


@dataclass(slots=True)
class _Grid:
    """Places of the ruling lines of one table, and the lines themselves."""

    xs: list[float]
    ys: list[float]
    across: list[Box]
    down: list[Box]

    def cell_of(self, piece: Piece) -> tuple[int, int] | None:
        """Return row and column of a piece's middle."""
        column = _slot(self.xs, (piece.x0 + piece.x1) / 2)
        row = _slot(self.ys, (piece.y0 + piece.y1) / 2)
        return None if row is None or column is None else (row, column)

    def spans(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return each place of the grid -> the first place of its cell: no line divides the two."""
        owner = {(row, column): (row, column) for row in range(len(self.ys) - 1) for column in range(len(self.xs) - 1)}

        def first(place: tuple[int, int]) -> tuple[int, int]:
            while owner[place] != place:
                place = owner[place]
            return place

        for row, column in list(owner):
            if column + 2 < len(self.xs):
                middle = (self.ys[row] + self.ys[row + 1]) / 2
                edge = self.xs[column + 1]
                if not any(abs(line[0] - edge) <= _TOUCH and line[1] <= middle <= line[3] for line in self.down):
                    one, other = sorted((first((row, column)), first((row, column + 1))))
                    owner[other] = one
            if row + 2 < len(self.ys):
                middle = (self.xs[column] + self.xs[column + 1]) / 2
                edge = self.ys[row + 1]
                if not any(abs(line[1] - edge) <= _TOUCH and line[0] <= middle <= line[2] for line in self.across):
                    one, other = sorted((first((row, column)), first((row + 1, column))))
                    owner[other] = one
        return {place: first(place) for place in owner}


def ruled_rows(pieces: list[Piece], rules: list[Box]) -> list[Piece]:
    """Replace the pieces in each ruled table by one piece a row, whose `row` has the cells' texts; lines of a cell are
    divided by line breaks. A cell that spans rows stands in each of them.
    """
    for grid in _grids(rules):
        table, rest = _table(pieces, grid)
        if table:
            pieces = rest + table
    return pieces


def _grids(rules: list[Box]) -> list[_Grid]:
    if sum(_is_upright(rule) for rule in rules) < 2 or len(rules) < 5:
        return []
    groups: list[list[Box]] = []
    for rule in sorted(rules, key=lambda line: line[1]):
        touching = [group for group in groups if any(_touches(rule, other) for other in group)]
        merged = [rule, *(line for group in touching for line in group)]
        groups = [group for group in groups if group not in touching] + [merged]
    grids = []
    for group in groups:
        across = [line for line in group if not _is_upright(line)]
        down = [line for line in group if _is_upright(line)]
        xs = _places([line[0] for line in down] + [x for line in across for x in (line[0], line[2])])
        ys = _places([line[1] for line in across] + [y for line in down for y in (line[1], line[3])])
        if len(xs) > 2 and len(ys) > 2 and down and across and len(xs) * len(ys) <= _MOST_CELLS:
            grids.append(_Grid(xs, ys, across, down))
    return grids


def _is_upright(line: Box) -> bool:
    return line[2] - line[0] <= line[3] - line[1]


def _touches(one: Box, other: Box) -> bool:
    return (
        one[0] <= other[2] + _TOUCH
        and other[0] <= one[2] + _TOUCH
        and one[1] <= other[3] + _TOUCH
        and other[1] <= one[3] + _TOUCH
    )


def _places(values: list[float]) -> list[float]:
    places: list[float] = []
    for value in sorted(values):
        if not places or value - places[-1] > _TOUCH:
            places.append(value)
    return places


def _slot(edges: list[float], value: float) -> int | None:
    if not edges[0] <= value <= edges[-1]:
        return None
    return max(index for index in range(len(edges) - 1) if edges[index] <= value)


def _table(pieces: list[Piece], grid: _Grid) -> tuple[list[Piece], list[Piece]]:
    """Return the rows of a table and the pieces outside it; no rows if the lines are no table's."""
    cells: dict[tuple[int, int], list[Piece]] = {}
    rest: list[Piece] = []
    spans = grid.spans()
    for piece in pieces:
        for part in _divide(piece, grid.xs):
            place = grid.cell_of(part) if part.row is None else None
            if place is None:
                rest.append(part)
            else:
                cells.setdefault(spans[place], []).append(part)
    if edges := _unruled_rows(cells, spans):
        across = [*grid.across, *((grid.xs[0], y, grid.xs[-1], y) for y in edges)]
        return _table(pieces, _Grid(grid.xs, _places([*grid.ys, *edges]), across, grid.down))
    texts = {place: _text(parts) for place, parts in cells.items()}
    owners = set(spans.values())
    if len(cells) < max(3, _LEAST_FILLED * len(owners)) or any(len(text) > _LONGEST_CELL for text in texts.values()):
        return [], pieces
    if any(_is_stack(text) for text in texts.values()):
        return [], pieces  # lines divide the columns, but not all of the rows
    if not _are_boxes(spans):
        return [], pieces  # a drawing
    used = {place[1] for place in cells}
    rows = []
    for row in range(len(grid.ys) - 1):
        places = [spans[row, column] for column in range(len(grid.xs) - 1)]
        values = [texts.get(p, "") if column == 0 or p != places[column - 1] else "" for column, p in enumerate(places)]
        kept = [value for column, value in enumerate(values) if column in used]
        own = [piece for place in set(places) for piece in cells.get(place, ())]
        if not own or not any(place[0] == row for place in places if place in cells):
            continue
        if sum(map(bool, kept)) == 1:
            kept = [value for value in kept if value]
        longest = max(own, key=lambda piece: len(piece.text))
        rows.append(
            Piece(
                " ".join(kept),
                grid.xs[0],
                grid.ys[row],
                grid.xs[-1],
                grid.ys[row + 1],
                longest.size,
                bold=all(piece.bold for piece in own),
                mono=False,
                row=tuple(kept),
            )
        )
    return rows, rest


def _are_boxes(spans: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Return whether each cell is a rectangle."""
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for place, first in spans.items():
        members.setdefault(first, []).append(place)
    for places in members.values():
        rows, columns = {row for row, _ in places}, {column for _, column in places}
        if len(places) != len(rows) * len(columns):
            return False
    return True


def _unruled_rows(
    cells: dict[tuple[int, int], list[Piece]], spans: dict[tuple[int, int], tuple[int, int]]
) -> list[float]:
    """Return the places between rows that no line divides: cells side by side with equally many lines at the same
    heights, as wrapped cells rarely have.
    """
    edges: list[float] = []
    last_row = {first: row for (row, _), first in sorted(spans.items())}
    stacks: dict[tuple[int, int], list[list[float]]] = {}
    for place, parts in cells.items():
        heights = sorted((piece.y0 + piece.y1) / 2 for piece in parts)
        stacks.setdefault((place[0], last_row[place]), []).append(_places(heights))
    for found in stacks.values():
        most = max(map(len, found))
        same = [heights for heights in found if len(heights) == most and _match(heights, found[0])]
        if most >= 3 and len(same) >= max(2, len(found) / 2):
            edges += [(one + other) / 2 for one, other in pairwise(same[0])]
    return edges


def _match(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < _TOUCH for a, b in zip(one, other, strict=True))


def _divide(piece: Piece, xs: list[float]) -> list[Piece]:
    """Divide a piece that crosses a ruling line between two words."""
    cuts = [gap for gap in piece.gaps if any(gap[1] - 1 <= x <= gap[2] + 1 for x in xs)]
    return split(piece, cuts) if cuts and piece.row is None else [piece]


def _text(parts: list[Piece]) -> str:
    """Return the text of a cell, its lines from top to bottom."""
    lines: list[list[Piece]] = []
    for piece in sorted(parts, key=lambda p: (p.y0 + p.y1) / 2):
        if lines and (piece.y0 + piece.y1) / 2 < lines[-1][0].y1 - 0.3 * piece.height:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return "\n".join(" ".join(p.text for p in sorted(line, key=lambda p: -p.x1 if p.rtl else p.x0)) for line in lines)


def _is_stack(text: str) -> bool:
    """Return whether a cell has several values, one a line."""
    lines = text.split("\n")
    return len(lines) > 1 and all(_VALUE.fullmatch(line) for line in lines)
