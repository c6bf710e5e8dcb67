"""Objects of a PDF page other than text: its ruling lines, and what is painted behind text."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pypdfium2 as pdfium
from pypdfium2 import raw

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in PDF coordinates."""

_MAX_OBJECTS = 20_000
"""Objects of a page that are looked at. Maps and plots have more; their lines rule no tables."""
_MAX_RULES = 600
_MAX_BACKDROP = 1_000
_EVERYWHERE = (-math.inf, -math.inf, math.inf, math.inf)
_MAX_SEGMENTS = 400
_THIN = 2.5
"""Maximum thickness of a ruling line in points."""
_SHORTEST = 6.0
_LIGHT = 240
"""Minimum of red, green and blue of a colour that does not show on white paper."""
_INVISIBLE_MODES = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)


@dataclass(slots=True)
class Backdrop:
    """Boxes of pictures, and of anything else that is painted in another colour than white."""

    pictures: list[Box] = field(default_factory=list)
    colours: list[Box] = field(default_factory=list)

    def has_picture(self, x: float, y: float) -> bool:
        """Return whether a picture covers the point: invisible text there is what OCR read in it."""
        return any(_contains(box, x, y) for box in self.pictures)

    def has_contrast(self, x: float, y: float) -> bool:
        """Return whether white text shows at the point."""
        return self.has_picture(x, y) or any(_contains(box, x, y) for box in self.colours)


def _contains(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


class InkReader:
    """Reads how a text object is painted."""

    def __init__(self) -> None:
        self._parts = tuple(ctypes.c_uint() for _ in range(4))

    def read(self, text_object: Any) -> tuple[bool, bool]:
        """Return whether it paints nothing (render modes 3 and 7, or wholly transparent), and whether it is filled with
        white, or nearly so.
        """
        mode = raw.FPDFTextObj_GetTextRenderMode(text_object)
        if mode in _INVISIBLE_MODES:
            return True, False
        parts = self._parts
        if not raw.FPDFPageObj_GetFillColor(text_object, *parts):
            return False, False
        if parts[3].value == 0:
            return True, False
        light = parts[0].value >= _LIGHT and parts[1].value >= _LIGHT and parts[2].value >= _LIGHT
        return False, light and mode == raw.FPDF_TEXTRENDERMODE_FILL


def _fill(path: Any) -> tuple[int, int, int, int] | None:
    """Return red, green, blue, opacity (0 to 255); None for a pattern."""
    parts = tuple(ctypes.c_uint() for _ in range(4))
    if not raw.FPDFPageObj_GetFillColor(path, *parts):
        return None
    red, green, blue, alpha = (part.value for part in parts)
    return red, green, blue, alpha


def backdrop_of(page: pdfium.PdfPage) -> Backdrop:
    """Return what is painted behind the text of a page."""
    result = Backdrop()
    for item in _objects(page):
        kinds = _kinds(item, 0)
        if kinds and (box := _bounds(item)):
            (result.pictures if "picture" in kinds else result.colours).append(box)
            if len(result.pictures) + len(result.colours) > _MAX_BACKDROP:
                return Backdrop([_EVERYWHERE])  # a drawing: in doubt its text is seen
    return result


def _kinds(item: Any, depth: int) -> set[str]:
    kind = raw.FPDFPageObj_GetType(item)
    if kind == raw.FPDF_PAGEOBJ_IMAGE:
        return {"picture"}
    if kind == raw.FPDF_PAGEOBJ_SHADING:
        return {"colour"}
    if kind == raw.FPDF_PAGEOBJ_PATH:
        filled, _ = _draw_mode(item)
        colour = _fill(item)
        return {"colour"} if filled and (colour is None or (min(colour[:3]) < _LIGHT and colour[3] > 0)) else set()
    if kind == raw.FPDF_PAGEOBJ_FORM and depth < 4:
        inner = range(min(raw.FPDFFormObj_CountObjects(item), 1000))
        return {kind for index in inner for kind in _kinds(raw.FPDFFormObj_GetObject(item, index), depth + 1)}
    return set()


def rules_of(page: pdfium.PdfPage) -> list[Box]:
    """Return the horizontal and vertical lines of a page; none if there are more than a table has."""
    rules: list[Box] = []
    for item in _objects(page):
        if raw.FPDFPageObj_GetType(item) != raw.FPDF_PAGEOBJ_PATH:
            continue
        filled, stroked = _draw_mode(item)
        box = _bounds(item)
        if box is None or not (filled or stroked):
            continue
        thin = min(box[2] - box[0], box[3] - box[1]) <= _THIN
        # the edges of a filled box are no lines: bands of colour behind rows leave every other row out
        rules += [rule for rule in ([box] if thin else _segments(item) if stroked else ()) if _is_rule(rule)]
        if len(rules) > _MAX_RULES:
            return []
    return rules


def _is_rule(box: Box) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return min(width, height) <= _THIN and max(width, height) >= _SHORTEST


def _segments(path: Any) -> Iterator[Box]:
    """Yield the straight lines of a path: the edges of a rectangle, the lines of a grid."""
    count = raw.FPDFPath_CountSegments(path)
    matrix = raw.FS_MATRIX()
    if not 2 <= count <= _MAX_SEGMENTS or not raw.FPDFPageObj_GetMatrix(path, ctypes.byref(matrix)):
        return
    x, y = ctypes.c_float(), ctypes.c_float()
    start = last = (0.0, 0.0)
    for index in range(count):
        segment = raw.FPDFPath_GetPathSegment(path, index)
        raw.FPDFPathSegment_GetPoint(segment, ctypes.byref(x), ctypes.byref(y))
        here = (
            matrix.a * x.value + matrix.c * y.value + matrix.e,
            matrix.b * x.value + matrix.d * y.value + matrix.f,
        )
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            start = here
        elif kind == raw.FPDF_SEGMENT_LINETO:
            yield _box_of(last, here)
        if raw.FPDFPathSegment_GetClose(segment):
            yield _box_of(here, start)
        last = here


def _box_of(one: tuple[float, float], other: tuple[float, float]) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1])


def _objects(page: pdfium.PdfPage) -> Iterator[Any]:
    for index in range(min(raw.FPDFPage_CountObjects(page.raw), _MAX_OBJECTS)):
        yield raw.FPDFPage_GetObject(page.raw, index)


def _draw_mode(path: Any) -> tuple[bool, bool]:
    """Return whether a path is filled, and whether it is stroked."""
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    raw.FPDFPath_GetDrawMode(path, ctypes.byref(fill), ctypes.byref(stroke))
    return bool(fill.value), bool(stroke.value)


def _bounds(item: Any) -> Box | None:
    edges = [ctypes.c_float() for _ in range(4)]
    if not raw.FPDFPageObj_GetBounds(item, *map(ctypes.byref, edges)):
        return None
    left, bottom, right, top = (edge.value for edge in edges)
    return left, bottom, right, top
