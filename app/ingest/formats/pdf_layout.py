"""Reading order of a page: lines from pieces, columns from the white space between them.

A gutter is a vertical band that few pieces cross. Pieces that cross it (a title, a wide figure's caption) divide the
page into bands from top to bottom; in each band the left column comes before the right one (reversed for right-to-left
scripts). Columns are cut again in the same way, so that three columns take two cuts. This is the recursive XY cut (Nagy
and Seth, 1984), extended by a tolerance for crossing elements.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from statistics import median

from app.ingest.formats.pdf_columns import divide_at_columns
from app.ingest.formats.pdf_grid import ruled_rows
from app.ingest.formats.pdf_objects import Box
from app.ingest.formats.pdf_page import Piece

_MAX_DEPTH = 6
_SMALLEST_GUTTER = 0.6
"""Minimum width of a gutter in font sizes."""
_CROSSING = (0.0, 0.03, 0.07, 0.12, 0.2, 0.3)
"""Shares of the total text height that may cross a gutter, in order of preference: a wide gutter with few crossings is
best."""
_LEAST_SIDE = 0.15
"""Minimum share of the total text height on each side of a gutter."""
_LEAST_LINES = 4
_FULL_LINE, _FULL_SHARE, _LEAST_FULL = 20, 0.65, 0.25
"""Minimum characters and share of the column's width of a full line; minimum share of full lines that distinguishes a
column of text (it may contain figures and tables) from a column of a table."""


@dataclass(slots=True)
class Line:
    """Adjacent pieces. Lines with the same `region` belong to one column and band."""

    cells: list[Piece]
    region: int = 0
    left: float = 0.0
    right: float = 0.0
    x0: float = field(init=False)
    x1: float = field(init=False)
    y0: float = field(init=False)
    y1: float = field(init=False)
    size: float = field(init=False)

    def __post_init__(self) -> None:
        self.x0 = min(piece.x0 for piece in self.cells)
        self.x1 = max(piece.x1 for piece in self.cells)
        self.y0 = min(piece.y0 for piece in self.cells)
        self.y1 = max(piece.y1 for piece in self.cells)
        self.size = max(self.cells, key=lambda piece: len(piece.text)).size

    @property
    def text(self) -> str:
        return " ".join(piece.text for piece in self.cells)

    @property
    def width(self) -> float:
        return sum(piece.width for piece in self.cells)

    @property
    def bold(self) -> bool:
        return all(piece.bold for piece in self.cells)

    @property
    def mono(self) -> bool:
        return all(piece.mono for piece in self.cells)

    @property
    def rtl(self) -> bool:
        return sum(len(p.text) for p in self.cells if p.rtl) > sum(len(p.text) for p in self.cells) / 2


def lines_of(pieces: list[Piece], rules: list[Box] | None = None) -> list[Line]:
    """Return the lines of a page in reading order, each with the edges of its column (`left`, `right`); `rules` are
    its ruling lines. A row of a ruled table is one line.
    """
    pieces = ruled_rows(divide_at_columns(pieces), rules or [])
    regions: list[list[Piece]] = []
    rtl = sum(len(p.text) for p in pieces if p.rtl) > sum(len(p.text) for p in pieces) / 2
    _cut(pieces, 0, rtl, regions)
    lines: list[Line] = []
    for number, region in enumerate(regions):
        rows = _rows(region)
        left, right = min(row.x0 for row in rows), max(row.x1 for row in rows)
        for row in rows:
            row.region, row.left, row.right = number, left, right
        lines += rows
    return lines


def _cut(pieces: list[Piece], depth: int, rtl: bool, regions: list[list[Piece]]) -> None:
    if not pieces:
        return
    gutter = _gutter(pieces) if depth < _MAX_DEPTH else None
    if gutter is None:
        regions.append(pieces)
        return
    middle = (gutter[0] + gutter[1]) / 2
    crossing = [p for p in pieces if p.x0 < middle < p.x1]
    rest = [p for p in pieces if not p.x0 < middle < p.x1]
    # pieces beside a crossing piece on the same line cross with it: the other cells of a wide table or equation
    for piece in list(rest):
        if any(_is_beside(piece, other) for other in crossing):
            rest.remove(piece)
            crossing.append(piece)
    for band, crosses in _bands(crossing, rest):
        if crosses or _is_table(band):
            _cut(band, _MAX_DEPTH, rtl, regions)
            continue
        sides = [[p for p in band if p.x1 <= middle], [p for p in band if p.x0 >= middle]]
        for side in reversed(sides) if rtl else sides:
            _cut(side, depth + 1, rtl, regions)


def _is_beside(one: Piece, other: Piece) -> bool:
    overlap = min(one.y1, other.y1) - max(one.y0, other.y0)
    return overlap > 0.5 * min(one.height, other.height)


def _bands(crossing: list[Piece], rest: list[Piece]) -> list[tuple[list[Piece], bool]]:
    """Group crossing and other pieces into bands from top to bottom."""
    bands: list[tuple[list[Piece], bool]] = []
    for piece, crosses in sorted(
        [(p, True) for p in crossing] + [(p, False) for p in rest], key=lambda item: (item[0].y0 + item[0].y1) / 2
    ):
        if not bands or bands[-1][1] != crosses:
            bands.append(([], crosses))
        bands[-1][0].append(piece)
    return bands


def _gutter(pieces: list[Piece]) -> tuple[float, float] | None:
    """Return the band that divides the pieces into two columns of text, or None."""
    if len(pieces) < 2 * _LEAST_LINES:
        return None
    size = median(p.size for p in pieces)
    total = sum(p.height for p in pieces)
    edges = sorted({edge for p in pieces for edge in (p.x0, p.x1)})
    starts = sorted((p.x0, p.height) for p in pieces)
    ends = sorted((p.x1, p.height) for p in pieces)
    best: tuple[float, tuple[float, float]] | None = None
    cover = passed = 0.0
    s = e = 0
    spans: list[tuple[float, float, float, float]] = []
    for left, right in itertools.pairwise(edges):
        while s < len(starts) and starts[s][0] <= left:
            cover += starts[s][1]
            s += 1
        while e < len(ends) and ends[e][0] <= left:
            cover -= ends[e][1]
            passed += ends[e][1]
            e += 1
        spans.append((left, right, cover, passed))
    candidates = {run for share in _CROSSING for run in _join_spans(spans, share * total)}
    for left, right, crossed, before in candidates:
        after = total - before - crossed
        if right - left < _SMALLEST_GUTTER * size or min(before, after) < _LEAST_SIDE * total:
            continue
        if not _is_text(pieces, left, right):
            continue
        score = 0.5 * min((right - left) / size, 2) + 4 * min(before, after) / total - 12 * crossed / total
        if best is None or score > best[0]:
            best = (score, (left, right))
    return best[1] if best else None


def _is_table(band: list[Piece]) -> bool:
    """Return whether most rows of a band are cells, so that it must be read across the gutter."""
    rows = _rows(band)
    many = [row for row in rows if len(row.cells) >= 3 and median(len(cell.text) for cell in row.cells) < 20]
    return len(many) > 0.6 * len(rows)


def _join_spans(spans: list[tuple[float, float, float, float]], most: float) -> list[tuple[float, float, float, float]]:
    """Join neighbouring spans that at most `most` crosses: (left, right, maximum crossing, passed before)."""
    found: list[tuple[float, float, float, float]] = []
    for left, right, cover, passed in spans:
        if cover > most:
            continue
        if found and found[-1][1] == left:
            found[-1] = (found[-1][0], right, max(cover, found[-1][2]), found[-1][3])
        else:
            found.append((left, right, cover, passed))
    return found


def _is_text(pieces: list[Piece], left: float, right: float) -> bool:
    """Return whether both sides are columns of text lines rather than columns of a table."""
    for side in ([p for p in pieces if p.x1 <= left + 0.1], [p for p in pieces if p.x0 >= right - 0.1]):
        rows = _rows(side)
        if len(rows) < _LEAST_LINES:
            return False
        width = max(row.x1 for row in rows) - min(row.x0 for row in rows)
        full = [row for row in rows if len(row.text) >= _FULL_LINE and row.width >= _FULL_SHARE * width]
        if len(full) < max(_LEAST_LINES, _LEAST_FULL * len(rows)):
            return False
    return True


def _rows(pieces: list[Piece]) -> list[Line]:
    """Join vertically overlapping pieces to lines, from left to right (right to left in such scripts)."""
    groups: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: (p.y0 + p.y1) / 2):
        for group in reversed(groups[-4:] if piece.row is None else []):
            if group[0].row is not None:
                continue  # a row of a ruled table is a line of its own
            if any(_is_beside(piece, other) for other in group) and not any(_overlaps(piece, other) for other in group):
                group.append(piece)
                break
        else:
            groups.append([piece])
    lines = []
    for group in groups:
        rtl = sum(len(p.text) for p in group if p.rtl) > sum(len(p.text) for p in group) / 2
        cells: list[Piece] = []
        for piece in sorted(group, key=lambda p: -p.x1 if rtl else p.x0):
            last = cells[-1] if cells else None
            if last is not None and max(piece.x0 - last.x1, last.x0 - piece.x1) < 0.8 * max(piece.size, last.size):
                cells[-1] = _glue(last, piece)
            else:
                cells.append(piece)
        lines.append(Line(cells))
    return sorted(lines, key=lambda line: (line.y0 + line.y1) / 2)


def _overlaps(one: Piece, other: Piece) -> bool:
    """Return whether two pieces occupy the same place, so that they can't be on one line."""
    overlap = min(one.x1, other.x1) - max(one.x0, other.x0)
    return overlap > 0.5 * min(one.width, other.width) and abs(one.y0 - other.y0) > 0.3 * max(one.height, other.height)


def _glue(one: Piece, other: Piece) -> Piece:
    gap = max(other.x0 - one.x1, one.x0 - other.x1)
    space = " " if gap > 0.15 * max(one.size, other.size) else ""
    longer = one if len(one.text) >= len(other.text) else other
    return Piece(
        text=f"{one.text}{space}{other.text}",
        x0=min(one.x0, other.x0),
        y0=min(one.y0, other.y0),
        x1=max(one.x1, other.x1),
        y1=max(one.y1, other.y1),
        size=longer.size,
        bold=longer.bold if min(len(one.text), len(other.text)) < 3 else one.bold and other.bold,
        mono=one.mono and other.mono,
        rtl=longer.rtl,
    )
