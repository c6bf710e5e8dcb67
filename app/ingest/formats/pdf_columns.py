"""Division of pieces at narrow gutters: columns of text or cells that are as close as words of a justified line."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import replace

from app.ingest.formats.pdf_page import Piece

_GUTTER = 0.6
"""Minimum width of a gutter in font sizes."""
_REACH = 8.0
"""Distance in font sizes, up and down, in which other lines are asked whether a column begins here."""
_TOLERANCE = 1.0
"""Maximum distance in points of the beginnings of lines in one column."""
_MAX_GAPS = 2_000
"""Gaps on a page that are compared with each other; a page of print has a few hundred."""
_NUMBER = re.compile(r"\(?\w{1,4}[.)]?|[^\w\s]")
"""The number of a heading or the mark of an item, which belongs to the text after it."""


def divide_at_columns(pieces: list[Piece]) -> list[Piece]:
    """Divide each piece at gaps after which other lines near it begin, too. Gaps of justified text stand anywhere."""
    if not 0 < sum(len(_wide_gaps(piece)) for piece in pieces) <= _MAX_GAPS:
        return pieces
    starts: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for piece in pieces:
        starts[round(piece.x0)].append((piece.y0, True))
        for _, _, right in _wide_gaps(piece):
            starts[round(right)].append((piece.y0, False))
    for places in starts.values():
        places.sort()
    by_height = sorted(pieces, key=lambda piece: piece.y0)
    heights = [piece.y0 for piece in by_height]
    divided: list[Piece] = []
    for piece in pieces:
        cuts = []
        low, high = piece.y0 - _REACH * piece.size, piece.y0 + _REACH * piece.size
        for gap in _wide_gaps(piece):
            near = [
                (y, whole)
                for x in (round(gap[2]) - 1, round(gap[2]), round(gap[2]) + 1)
                for y, whole in starts.get(x, ())
                if low <= y <= high and abs(y - piece.y0) > 0.3 * piece.size
            ]
            whole = len({round(y) for y, is_whole in near if is_whole})
            votes = len({round(y) for y, _ in near})
            if not (whole >= 2 or votes >= 5):
                continue
            others = by_height[bisect_left(heights, low) : bisect_right(heights, high)]
            against = sum(_crosses(other, gap) for other in others)
            if against <= (0.4 if whole >= 2 else 0.15) * votes:
                cuts.append(gap)
        divided += split(piece, cuts) if cuts else [piece]
    return divided


def _wide_gaps(piece: Piece) -> list[tuple[int, float, float]]:
    if piece.rtl or piece.mono:
        return []
    return [
        gap
        for gap in piece.gaps
        if gap[2] - gap[1] >= _GUTTER * piece.size and not _NUMBER.fullmatch(piece.text[: gap[0]].strip())
    ]


def _crosses(piece: Piece, gap: tuple[int, float, float]) -> bool:
    """Return whether a piece goes on where the gap ends, without a gap of its own there."""
    edge = gap[2]
    if not piece.x0 < edge - _TOLERANCE or not piece.x1 > edge + _TOLERANCE:
        return False
    return not any(left <= edge - 0.3 * piece.size and right >= edge - _TOLERANCE for _, left, right in piece.gaps)


def split(piece: Piece, cuts: list[tuple[int, float, float]]) -> list[Piece]:
    """Return the parts of a piece between gaps."""
    parts: list[Piece] = []
    start, x0 = 0, piece.x0
    for index, left, right in [*cuts, (len(piece.text), piece.x1, piece.x1)]:
        own = tuple((at - start, a, b) for at, a, b in piece.gaps if start < at < index)
        parts.append(replace(piece, text=piece.text[start:index].strip(), x0=x0, x1=left, gaps=own))
        start, x0 = index, right
    return parts
