"""Removal of page furniture: running heads, footers, page numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from statistics import median

from app.ingest.formats.pdf_layout import Line
from app.ingest.formats.pdf_page import Page

_EDGE = 0.14
"""Share of the page's height, at the top and at the bottom, that may contain furniture; doubled for wide margins."""
_LEAST_GAP = 1.5
"""Minimum gap to the text in font sizes; lines of a paragraph are 1.1 to 1.4 apart."""
_OUTERMOST = 4
"""Number of lines checked at each end of a page."""
_SHARE = 0.35
_LARGER = 1.15
_SAME_PLACE = 4.0
"""Maximum distance in points of a running head's places."""
_NUMBER = re.compile(r"\d+")
_DIGITS = re.compile(r"\d+|(?<![^\W\d])[ivxlc]+(?![^\W\d])")
_PAGE_NUMBER = re.compile(
    r"(?i)[-–—\[(| ]*(?:(?:page|seite|página|pagina|p\.|стр\.?|صفحه)\s*)?(?:\d{1,4}|[ivxlc]{1,6})"
    r"(?:\s*(?:/|of|von|de|di|-)\s*\d{1,4})?[-–—\])| .]*"
)


def remove_furniture(pages: list[tuple[Page, list[Line]]]) -> list[tuple[Page, list[Line]]]:
    """Return the pages' lines without page numbers and without lines that repeat at page edges at the same place.

    Their numbers may change as those of pages and sections do. What stands inside of other text is no furniture.
    """
    seen: dict[tuple[str, bool], set[int]] = defaultdict(set)
    for page, lines in pages:
        for line, top in _edges(page, lines):
            seen[_shape(line), top].add(page.number)
    sizes: dict[str, list[float]] = defaultdict(list)
    numbers: dict[tuple[str, bool], list[tuple[int, ...]]] = defaultdict(list)
    places: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for page, lines in pages:
        for line, top in _edges(page, lines):
            sizes[_shape(line)].append(line.size)
            numbers[_shape(line), top].append(tuple(int(number[:9]) for number in _NUMBER.findall(line.text)))
            places[_shape(line), top].append(line.y0)
    counting = {shape for shape, found in numbers.items() if _count_upwards(found)}
    needed = max(2 if len(pages) < 4 else 3, _SHARE * len(pages) * 0.5)
    kept = []
    for page, lines in pages:
        gone = set()
        inside: dict[bool, Line] = {}
        for line, top in _edges(page, lines):
            text = line.text.strip()
            shape = _shape(line), top
            if _PAGE_NUMBER.fullmatch(text):
                gone.add(id(line))
            elif line.size > _LARGER * median(sizes[shape[0]]):
                continue  # the title itself, which later pages repeat in small
            elif top in inside and not _is_level(inside[top], line):
                continue
            elif (
                shape in counting
                and len(seen[shape]) >= needed
                and _near(seen[shape], page.number)
                and sum(abs(y - line.y0) < _SAME_PLACE for y in places[shape]) >= needed
            ):
                gone.add(id(line))
            else:
                inside.setdefault(top, line)
        rest = [line for line in lines if id(line) not in gone]
        # a page of furniture only (a form, a repeated title page) is content
        kept.append((page, rest if rest else [line for line in lines if not _PAGE_NUMBER.fullmatch(line.text.strip())]))
    return kept


def _count_upwards(found: list[tuple[int, ...]]) -> bool:
    """Return whether the numbers of a repeated line never fall from page to page; those of a form's values do."""
    steps = [one <= other for one, other in pairwise(found)]
    return sum(steps) >= 0.8 * len(steps)


def _is_level(one: Line, other: Line) -> bool:
    return min(one.y1, other.y1) - max(one.y0, other.y0) > 0.5 * min(one.y1 - one.y0, other.y1 - other.y0)


def _edges(page: Page, lines: list[Line]) -> list[tuple[Line, bool]]:
    """Return the lines near the upper (True) and the lower (False) edge that white space separates from the text."""
    ordered = sorted(lines, key=lambda line: line.y0)
    top = _outer([line for line in ordered[: _OUTERMOST + 1] if line.y1 < 2 * _EDGE * page.height], ordered)
    backwards = ordered[::-1]
    near = [line for line in backwards[: _OUTERMOST + 1] if line.y0 > (1 - 2 * _EDGE) * page.height]
    return [(line, True) for line in top] + [(line, False) for line in _outer(near, backwards)]


def _outer(near: list[Line], ordered: list[Line]) -> list[Line]:
    """Return the lines before the widest gap among the first few; none if the text begins at the edge."""
    widest, cut = 0.0, 0
    for index, line in enumerate(near[:_OUTERMOST]):
        if index + 1 == len(ordered):
            break
        gap = abs(ordered[index + 1].y0 - line.y0) / max(line.size, 1.0)
        if gap >= _LEAST_GAP and gap > widest:
            widest, cut = gap, index + 1
    return near[:cut]


def _shape(line: Line) -> str:
    return _DIGITS.sub("#", " ".join(line.text.lower().split()))


def _near(pages: set[int], number: int) -> bool:
    """Return whether a nearby page has the same line: left and right pages differ, chapters end."""
    return any(0 < abs(other - number) <= 4 for other in pages)
