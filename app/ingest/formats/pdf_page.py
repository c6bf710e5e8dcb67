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
from functools import lru_cache

import pypdfium2 as pdfium
from pypdfium2 import raw

from app.ingest.formats.pdf_annotations import annotations_of
from app.ingest.formats.pdf_objects import Backdrop, Box, InkReader, backdrop_of, rules_of

HYPHEN = "\x02"
"""PDFium's mark of a hyphen at the end of a line."""
_BOLD = re.compile(r"(?i)bold|black|heavy|demi(?!talic)|(^|[-,+])(?:\w*medi)\b|cmbx|\bbx\d|sfbx|cmssbx|nimbus\w*-medi")
_MONO = re.compile(
    r"(?i)courier|mono(?!type)|consol|cmtt|typewriter|menlo|inconsolata|cmsltt|sftt|txtt|lucidaconsole|fixed"
)
_FORCE_BOLD = 1 << 18
_WIDE_GAP = 1.3
"""Gap in font sizes that begins a new piece. Spaces of justified text stay below 1."""
_RAISED = 0.82
"""Maximum size of a raised or lowered digit as a multiple of the size of the character before it."""
_DOUBLE_F = 0.5
"""Minimum width in font sizes of a ligature of two f, which some fonts name as one f; an f is at most 0.4 wide."""
_WORD_IN_F = re.compile(r"i?of|if|.*(?:self|half|ief|oof|leaf|loaf|beef|reef|golf|gulf|wolf|shelf|turf|surf)|pdf|f")
_REST_OF_OFF = re.compile(r"er(?:s|ed|ings?|or)?|ices?|icers?|icial(?:s|ly)?|sets?|shore|site|line|ensive|end")
"""Words that end in one f; what follows "off" in words whose ligature reads as "of"."""
_NARROW_GAP = 0.25
"""Minimum gap in font sizes at which a piece may be divided where a column or a ruling line says so."""
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
    gaps: tuple[tuple[int, float, float], ...] = ()
    """Gaps between words: index of the character after the gap, left and right edge of the gap."""
    row: tuple[str, ...] | None = None
    """Cells, if this is a row of a ruled table."""

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
    aside: list[list[Piece]] = field(default_factory=list)
    """Pieces at other angles than the page's own, each turned upright."""
    rules: list[Box] = field(default_factory=list)
    """Ruling lines: x0, y0, x1, y1."""
    comments: list[str] = field(default_factory=list)
    unseen: int = 0
    """Number of characters left out because nobody sees them."""


@dataclass(slots=True)
class _Font:
    size: float
    bold: bool
    mono: bool
    angle: int
    invisible: bool = False
    light: bool = False
    name: str = ""


def read_page(document: pdfium.PdfDocument, index: int) -> Page:
    """Return the pieces of page `index` (from 0), with the values of form fields at their places.

    Raises:
        pypdfium2.PdfiumError: the page can't be loaded.
    """
    page = document[index]
    try:
        textpage = page.get_textpage()
        try:
            return _read(page, textpage, index + 1, document.formenv)
        finally:
            textpage.close()
    finally:
        page.close()


def _read(page: pdfium.PdfPage, textpage: pdfium.PdfTextPage, number: int, form: pdfium.PdfFormEnv | None) -> Page:
    box = left, bottom, right, top = page.get_bbox()
    by_angle: dict[int, list[_Char]] = {}
    chars = list(_characters(textpage))
    _double_f(chars)
    seen, unseen = _seen(page, chars, (left - 2, bottom - 2, right + 2, top + 2))
    for char in _reverse_ligatures(iter(seen)):
        by_angle.setdefault(char.font.angle, []).append(char)
    rotation = page.get_rotation() // 90
    # upright is the direction of most of the text; without text, the page's own rotation
    up = max(by_angle, key=lambda angle: (len(by_angle[angle]), angle == -rotation % 4), default=-rotation % 4)
    turned = up % 2 == 1
    result = Page(number, *((top - bottom, right - left) if turned else (right - left, top - bottom)), unseen=unseen)
    for angle, turned_chars in by_angle.items():
        pieces = list(_pieces(_turn(turned_chars, angle, box)))
        if angle == up:
            result.pieces = pieces
        else:
            result.aside.append(pieces)
    _annotate(result, page, form, up, box)
    if len(result.pieces) > 3:
        result.rules = [_upright(rule, up, box) for rule in rules_of(page)]
    return result


def _seen(page: pdfium.PdfPage, chars: list[_Char], box: Box) -> tuple[list[_Char], int]:
    """Return the characters that a reader sees, and the number of the others: outside the page, without ink and not
    over a picture (OCR puts its text there), white on white.
    """
    suspicious = any(char.font.invisible or char.font.light for char in chars)
    backdrop = backdrop_of(page) if suspicious else Backdrop()
    seen: list[_Char] = []
    for char in chars:
        x, y = (char.x0 + char.x1) / 2, (char.y0 + char.y1) / 2
        if not (box[0] <= x <= box[2] and box[1] <= y <= box[3]):
            continue
        if char.font.invisible and not backdrop.has_picture(x, y):
            continue
        if char.font.light and not char.font.invisible and not backdrop.has_contrast(x, y):
            continue
        seen.append(char)
    return seen, len(chars) - len(seen)


def _annotate(page: Page, source: pdfium.PdfPage, form: pdfium.PdfFormEnv | None, up: int, box: Box) -> None:
    """Add the values of fields as pieces at their places, and comments beside the text."""
    for note in annotations_of(source, form):
        if note.comment:
            page.comments.append(note.text)
            continue
        x0, y0, x1, y1 = _upright((note.left, note.bottom, note.right, note.top), up, box)
        lines = [line for line in note.text.splitlines() if line.strip()]
        step = (y1 - y0) / len(lines)
        size = min(max(0.7 * step, 4.0), 11.0)
        for index, line in enumerate(lines):
            end = min(x1, x0 + 0.5 * size * len(line))
            top = y0 + index * step + (step - size) / 2
            page.pieces.append(Piece(line, x0, top, end, top + size, size, bold=False, mono=False))


@dataclass(slots=True)
class _Char:
    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    font: _Font
    spaced: bool


def _characters(textpage: pdfium.PdfTextPage) -> Iterator[_Char]:
    """Yield the characters (PDF coordinates); white space is recorded on the character after it."""
    handle = textpage.raw
    rect = raw.FS_RECTF()
    pointer = ctypes.byref(rect)
    fonts: dict[int, _Font] = {}
    reader = _FontReader(handle)
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
        painter = object_of(handle, index)
        owner = ctypes.cast(painter, ctypes.c_void_p).value or 0
        font = fonts.get(owner)
        if font is None or not owner:
            font = fonts[owner] = reader.read(index, painter if owner else None)
        yield _Char(chr(code), x0, y0, x1, y1, font, spaced)
        spaced = False


def _double_f(chars: list[_Char]) -> None:
    """Mend words like "e_ect": some fonts name the ligature of two f as one f, and PDFium puts a space after it."""
    widths: dict[tuple[str, float], float] = {}
    for char in chars:
        if char.text == "f" and char.x1 - char.x0 < _DOUBLE_F * char.font.size:
            kind = char.font.name, round(char.font.size, 1)
            widths[kind] = min(widths.get(kind, math.inf), char.x1 - char.x0)
    for index, (before, one, other) in enumerate(zip(chars, chars[1:], chars[2:], strict=False)):
        if one.text == "f" and other.spaced and other.text.islower() and before.text != "f":
            width = one.x1 - one.x0
            usual = widths.get((one.font.name, round(one.font.size, 1)), 0.0)
            near = 0 <= other.x0 - one.x1 < _NARROW_GAP * one.font.size
            wide = width > max(_DOUBLE_F * one.font.size, 1.5 * usual)
            if near and wide and not _are_two_words(chars, index + 1):
                one.text, other.spaced = "ff", False


def _are_two_words(chars: list[_Char], index: int) -> bool:
    """Return whether the f at `index` ends a word of its own: "of the", but not "of ered"."""
    start = index
    while start > 0 and index - start < 12 and not chars[start].spaced and chars[start - 1].text.isalpha():
        start -= 1
    end = index + 2
    while end < len(chars) and end - index < 12 and not chars[end].spaced and chars[end].text.isalpha():
        end += 1
    word = "".join(char.text for char in chars[start : index + 1]).lower()
    rest = "".join(char.text for char in chars[index + 1 : end])
    return bool(_WORD_IN_F.fullmatch(word)) and not (word == "of" and _REST_OF_OFF.fullmatch(rest))


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


class _FontReader:
    """Reads the fonts of characters. Some producers make an object of each character, so that this is called for each:
    buffers are reused, names are matched once.
    """

    def __init__(self, handle: object) -> None:
        self._handle = handle
        self._flags = ctypes.c_int()
        self._matrix = raw.FS_MATRIX()
        self._buffer = ctypes.create_string_buffer(128)
        self._ink = InkReader()

    def read(self, index: int, owner: object) -> _Font:
        """Return the font of the character `index`, which `owner` paints."""
        handle = self._handle
        length = raw.FPDFText_GetFontInfo(handle, index, self._buffer, 128, self._flags)
        name = self._buffer.raw[: min(max(length - 1, 0), 128)].decode("utf-8", "replace")
        bold, mono = _name_says(name)
        weight = raw.FPDFText_GetFontWeight(handle, index)
        angle = raw.FPDFText_GetCharAngle(handle, index)
        size = raw.FPDFText_GetFontSize(handle, index)
        if raw.FPDFText_GetMatrix(handle, index, self._matrix):
            scale = math.hypot(self._matrix.b, self._matrix.d)
            # PDFium returns the size before the text matrix, in which some producers do all scaling
            size = size * scale if scale > 0 else size
        invisible, light = self._ink.read(owner) if owner else (False, False)
        return _Font(
            size=max(abs(size), 0.1),
            bold=bold or weight >= 600 or bool(self._flags.value & _FORCE_BOLD),
            mono=mono,
            angle=round(angle / (math.pi / 2)) % 4 if angle >= 0 else 0,
            invisible=invisible,
            light=light,
            name=name,
        )


@lru_cache(maxsize=1024)
def _name_says(name: str) -> tuple[bool, bool]:
    """Return whether a font's name says bold, and whether it says fixed width."""
    return bool(_BOLD.search(name)), bool(_MONO.search(name))


def _turn(chars: list[_Char], angle: int, box: Box) -> list[_Char]:
    """Rotate `chars` so that their text runs to the right, with the origin in the upper left corner of the page."""
    for c in chars:
        c.x0, c.y0, c.x1, c.y1 = _upright((c.x0, c.y0, c.x1, c.y1), angle, box)
    return chars


def _upright(item: Box, angle: int, box: Box) -> Box:
    left, bottom, right, top = box
    x0, y0, x1, y1 = item
    if angle == 0:
        return x0 - left, top - y1, x1 - left, top - y0
    if angle == 3:  # runs upwards
        return y0 - bottom, x0 - left, y1 - bottom, x1 - left
    if angle == 2:
        return right - x1, y0 - bottom, right - x0, y1 - bottom
    return top - y1, right - x1, top - y0, right - x0  # runs downwards


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
    gaps: list[tuple[int, float, float]] = []
    length = 0
    last = base = run[0]
    for char in run:
        gap = max(char.x0 - last.x1, last.x0 - char.x1)
        if char is not last and (char.spaced or gap > 0.3 * max(char.font.size, last.font.size)):
            text.append(" ")
            length += 1
            if char.x0 - last.x1 > _NARROW_GAP * char.font.size:
                gaps.append((length, last.x1, char.x0))
        elif (
            last is base
            and char.font.size < base.font.size
            and char.text.isdigit()
            and (mark := _shift_mark(base, char))
        ):
            text.append(mark)
            length += 1
        text.append(char.text)
        length += len(char.text)
        last = char
        if char.font.size > _RAISED * base.font.size or char.spaced:
            base = char
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
        gaps=tuple(gaps),
    )


def _shift_mark(base: _Char, digit: _Char) -> str:
    """Return ``^`` before a raised digit, so that 10^6 is not 106 and a footnote's mark does not change a number, and
    ``_`` before a lowered digit that follows a digit; else an empty text. CO2 and H2O stay as they are.
    """
    if not base.text[-1].isalnum() or digit.font.size > _RAISED * base.font.size:
        return ""
    raised = (base.y1 - 0.22 * base.font.size) - (digit.y1 - 0.22 * digit.font.size)
    if raised > 0.15 * base.font.size:
        return "^"
    return "_" if raised < -0.05 * base.font.size and base.text.isdigit() else ""


def is_rtl(char: str) -> bool:
    """Return whether a character belongs to a right-to-left script (Hebrew, Arabic and related ones)."""
    return "\u0590" <= char <= "\u08ff" or "\ufb1d" <= char <= "\ufdff" or "\ufe70" <= char <= "\ufeff"
