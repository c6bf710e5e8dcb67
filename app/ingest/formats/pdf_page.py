"""Extraction of text pieces with their positions from a PDF page, upright, with y growing downwards.

Later modules work on geometry in points (1/72 inch); only this module and `pdf` know PDFium.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pypdfium2 as pdfium
from pypdfium2 import raw

HYPHEN = "\x02"
"""PDFium's mark of a hyphen at the end of a line."""
_BOLD = re.compile(r"(?i)bold|black|heavy|demi(?!talic)|(^|[-,+])(?:\w*medi)\b|cmbx|\bbx\d|sfbx|cmssbx|nimbus\w*-medi")
_MONO = re.compile(
    r"(?i)courier|mono(?!type)|consol|cmtt|typewriter|menlo|inconsolata|cmsltt|sftt|txtt|lucidaconsole|fixed"
)
_FORCE_BOLD = 1 << 18
_WIDE_GAP = 1.3
"""Gap in font sizes that begins a new piece. Spaces of justified text stay below 1."""
_MAX_CHARACTERS = 400_000
"""Maximum characters on one page: 50 times a page of small print; a page with more is a bomb or a data dump."""


@dataclass(slots=True)
class Piece:
    """Text on one line without a wide gap. `size` is its largest font size; edges are in points."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    bold: bool
    mono: bool
    rtl: bool = False

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def width(self) -> float:
        return self.x1 - self.x0


@dataclass(slots=True)
class Page:
    """A page's pieces in the order of the file, and its displayed size in points."""

    number: int
    width: float
    height: float
    pieces: list[Piece] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    """Texts at another angle than the page's own."""


@dataclass(frozen=True, slots=True)
class _Font:
    size: float
    bold: bool
    mono: bool
    angle: int


def read_page(document: pdfium.PdfDocument, index: int) -> Page:
    """Return the pieces of page `index` (from 0).

    Raises:
        pypdfium2.PdfiumError: the page can't be loaded.
    """
    page = document[index]
    try:
        textpage = page.get_textpage()
        try:
            return _read(page, textpage, index + 1)
        finally:
            textpage.close()
    finally:
        page.close()


def _read(page: pdfium.PdfPage, textpage: pdfium.PdfTextPage, number: int) -> Page:
    left, bottom, right, top = page.get_bbox()
    by_angle: dict[int, list[_Char]] = {}
    for char in _reverse_ligatures(_characters(textpage, (left - 2, bottom - 2, right + 2, top + 2))):
        by_angle.setdefault(char.font.angle, []).append(char)
    rotation = page.get_rotation() // 90
    if not by_angle:
        return Page(number, right - left, top - bottom)
    # upright is the direction of most of the text; without text, the page's own rotation
    up = max(by_angle, key=lambda angle: (len(by_angle[angle]), angle == -rotation % 4))
    turned = up % 2 == 1
    result = Page(number, *((top - bottom, right - left) if turned else (right - left, top - bottom)))
    for angle, chars in by_angle.items():
        pieces = list(_pieces(_turn(chars, angle, (left, bottom, right, top))))
        if angle == up:
            result.pieces = pieces
        else:
            result.aside.append(" ".join(piece.text for piece in pieces))
    return result


@dataclass(slots=True)
class _Char:
    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    font: _Font
    spaced: bool


def _characters(textpage: pdfium.PdfTextPage, box: tuple[float, float, float, float]) -> Iterator[_Char]:
    """Yield the characters inside `box` (PDF coordinates); white space is recorded on the character after it."""
    handle = textpage.raw
    rect = raw.FS_RECTF()
    pointer = ctypes.byref(rect)
    fonts: dict[int, _Font] = {}
    spaced = False
    unicode_of, box_of, object_of = raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox, raw.FPDFText_GetTextObject
    high = 0
    for index in range(min(textpage.count_chars(), _MAX_CHARACTERS)):
        code = unicode_of(handle, index)
        if code in (0x20, 0xA0, 0x09, 0x0A, 0x0D) or code == 0:
            spaced = True
            continue
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000 and high:
            code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)
        high = 0
        if code in (0xFFFE, 0xFFFF) or not box_of(handle, index, pointer):
            continue
        x0, y0, x1, y1 = rect.left, rect.bottom, rect.right, rect.top
        if not (box[0] <= (x0 + x1) / 2 <= box[2] and box[1] <= (y0 + y1) / 2 <= box[3]):
            continue
        owner = ctypes.cast(object_of(handle, index), ctypes.c_void_p).value or 0
        font = fonts.get(owner)
        if font is None or not owner:
            font = fonts[owner] = _font(handle, index)
        yield _Char(chr(code), x0, y0, x1, y1, font, spaced)
        spaced = False


def _reverse_ligatures(chars: Iterator[_Char]) -> Iterator[_Char]:
    """Reverse the letters of each Arabic ligature: they share one place, and PDFium returns them from left to right."""
    held: list[_Char] = []
    for char in chars:
        if held and (char.x0, char.x1, char.y0) != (held[0].x0, held[0].x1, held[0].y0):
            yield from reversed(held)
            held = []
        if is_rtl(char.text):
            held.append(char)
        else:
            yield from reversed(held)
            held = []
            yield char
    yield from reversed(held)


def _font(handle: object, index: int) -> _Font:
    flags = ctypes.c_int()
    buffer = ctypes.create_string_buffer(128)
    length = raw.FPDFText_GetFontInfo(handle, index, buffer, 128, ctypes.byref(flags))
    name = buffer.raw[: min(max(length - 1, 0), 128)].decode("utf-8", "replace")
    weight = raw.FPDFText_GetFontWeight(handle, index)
    angle = raw.FPDFText_GetCharAngle(handle, index)
    quarter = round(angle / (math.pi / 2)) % 4 if angle >= 0 else 0
    matrix = raw.FS_MATRIX()
    size = raw.FPDFText_GetFontSize(handle, index)
    if raw.FPDFText_GetMatrix(handle, index, ctypes.byref(matrix)):
        scale = math.hypot(matrix.b, matrix.d)
        # PDFium returns the size before the text matrix, in which some producers do all scaling
        size = size * scale if scale > 0 else size
    return _Font(
        size=max(abs(size), 0.1),
        bold=bool(_BOLD.search(name)) or weight >= 600 or bool(flags.value & _FORCE_BOLD),
        mono=bool(_MONO.search(name)),
        angle=quarter,
    )


def _turn(chars: list[_Char], angle: int, box: tuple[float, float, float, float]) -> list[_Char]:
    """Rotate `chars` so that their text runs to the right, with the origin in the upper left corner of the page."""
    left, bottom, right, top = box
    for c in chars:
        x0, y0, x1, y1 = c.x0, c.y0, c.x1, c.y1
        if angle == 0:
            c.x0, c.x1, c.y0, c.y1 = x0 - left, x1 - left, top - y1, top - y0
        elif angle == 3:  # runs upwards
            c.x0, c.x1, c.y0, c.y1 = y0 - bottom, y1 - bottom, x0 - left, x1 - left
        elif angle == 2:
            c.x0, c.x1, c.y0, c.y1 = right - x1, right - x0, y0 - bottom, y1 - bottom
        else:  # runs downwards
            c.x0, c.x1, c.y0, c.y1 = top - y1, top - y0, right - x1, right - x0
    return chars


def _pieces(chars: list[_Char]) -> Iterator[Piece]:
    """Yield runs of consecutive characters on one line without a wide gap."""
    run: list[_Char] = []
    for char in chars:
        if run and not _follows(run, char):
            yield from _piece(run)
            run = []
        run.append(char)
    if run:
        yield from _piece(run)


def _follows(run: list[_Char], char: _Char) -> bool:
    last = run[-1]
    size = max(last.font.size, char.font.size)
    if min(last.y1, char.y1) - max(last.y0, char.y0) < 0.35 * min(last.y1 - last.y0, char.y1 - char.y0):
        return False
    if last.text == HYPHEN and char.spaced:
        return False
    gap = max(char.x0 - last.x1, last.x0 - char.x1)
    if is_rtl(char.text) or is_rtl(last.text):
        return gap < _WIDE_GAP * size
    return char.x0 >= last.x0 - 0.5 * size and gap < _WIDE_GAP * size


def _piece(run: list[_Char]) -> Iterator[Piece]:
    text: list[str] = []
    last: _Char | None = None
    for char in run:
        if last is not None:
            gap = max(char.x0 - last.x1, last.x0 - char.x1)
            if char.spaced or gap > 0.3 * max(char.font.size, last.font.size):
                text.append(" ")
        text.append(char.text)
        last = char
    weights = Counter[tuple[float, bool, bool]]()
    for char in run:
        weights[char.font.size, char.font.bold, char.font.mono] += 1
    (size, _, _), _ = max(weights.items(), key=lambda item: (item[1] > len(run) / 3, item[0][0]))
    letters = [char for char in run if char.text.isalnum()] or run
    capitals = [char for char in letters if char.text.isalpha()]
    if len(capitals) > 3 and all(char.text.isupper() for char in capitals):
        size = max(char.font.size for char in letters)  # small capitals are capitals of a smaller size
    yield Piece(
        text="".join(text),
        x0=min(char.x0 for char in run),
        y0=min(char.y0 for char in run),
        x1=max(char.x1 for char in run),
        y1=max(char.y1 for char in run),
        size=size,
        bold=sum(char.font.bold for char in letters) > 0.95 * len(letters),
        mono=sum(char.font.mono for char in letters) > 0.8 * len(letters),
        rtl=sum(map(is_rtl, (char.text for char in run))) > len(letters) / 2,
    )


def is_rtl(char: str) -> bool:
    """Return whether a character belongs to a right-to-left script (Hebrew, Arabic and related ones)."""
    return "\u0590" <= char <= "\u08ff" or "\ufb1d" <= char <= "\ufdff" or "\ufe70" <= char <= "\ufeff"
