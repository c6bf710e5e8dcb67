"""Lines of a PDF -> headings, paragraphs, list items, table rows and code."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from app.ingest.parse.clean import clean, clean_code
from app.ingest.parse.pdf_layout import Line
from app.ingest.parse.pdf_page import HYPHEN, Page, Piece
from app.passage import Block, BlockKind

_BULLET = re.compile(r"[•‣▪▫◦●○■□➢➤►▸❖✓✔\u2043\u2219\uf0b7\uf0a7\uf0d8\uf0fc\u00b7]\s*|[-–—*]\s+(?=\S)")
_MARK = re.compile(
    rf"[•‣▪▫◦●○■□➢➤►▸❖✓✔\u2043\u2219\uf0b7\uf0a7\uf0d8\uf0fc\u00b7*–—{HYPHEN}-]|\(?(?:\d{{1,2}}|[a-z])[.)]"
)
"""A bullet or number that stands alone, its text after a tab."""
_ENUMERATED = re.compile(r"(?:\(?\d{1,2}[.)]|\(?[a-z][.)]|\([ivx]{1,4}\)|\[\d{1,3}\])\s+\S")
_SECTION = re.compile(
    r"(?:(?:chapter|section|part|appendix|kapitel|abschnitt|teil|anhang|chapitre|annexe)\s+)?"
    r"((?:[A-Z]|\d{1,2})(?:\.\d{1,2}){0,4})[.:)]?\s+[^\W\d_]",
    re.IGNORECASE,
)
_FIXED_HEADING = re.compile(
    r"(?i)(abstract|introduction|conclusions?|references|bibliography|acknowledge?ments?|contents|table of contents|"
    r"zusammenfassung|literatur(verzeichnis)?|inhalt(sverzeichnis)?|résumé|références|resumen|referencias)"
)
_ROMAN = re.compile(r"[IVX]{1,5}\.\s+[A-Z][^.]{3,70}")
"""Sections as the IEEE numbers them: neither bold nor large, but in the middle of the column."""
_LEADER = re.compile(r"\s*(?:\.\s?){4,}\s*|\s*(?:_\s?){4,}\s*|\s*…{2,}\s*")
_CAPTION = re.compile(r"(?i)(figure|fig\.|table|tab\.|abbildung|abb\.|tabelle|tableau|algorithm|listing)\s*[\dIVX]+")
_SENTENCE_END = (".", "!", "?", "…", ".”", '."', ".)", "。", "！", "？", "؟", "۔", ":", ";")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LONGEST_HEADING = 160
_LARGER = 1.12
"""A heading's size is at least so many times the body's."""
_CODE_CHARACTERS = re.compile(r"[{}();=<>\[\]#$\\|]|\w_\w|^\s*(def|class|import|return|for|if|while)\b")


@dataclass(slots=True)
class Style:
    """What the whole document tells of its parts: the body's size, the headings' sizes, the outline, the words."""

    body: float
    sizes: list[float]
    outline: dict[str, int] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)


def style_of(pages: list[tuple[Page, list[Line]]], outline: dict[str, int]) -> Style:
    """`outline`: text of a bookmark, as `key` makes it, -> its depth from 1."""
    sizes: Counter[float] = Counter()
    words: Counter[str] = Counter()
    for _, lines in pages:
        cut = False
        for line in lines:
            sizes[_round(line.size)] += len(line.text)
            found = _WORD.findall(line.text.lower())
            cut_here = line.text.rstrip().endswith(("-", HYPHEN))
            words.update(found[cut : len(found) - cut_here])
            cut = cut_here
    body = max(sizes, key=lambda size: (sizes[size], size)) if sizes else 10.0
    larger = sorted((size for size in sizes if size >= _LARGER * body), reverse=True)
    merged: list[float] = []
    for size in larger:
        if not merged or merged[-1] > 1.05 * size:
            merged.append(size)
    return Style(body, merged, outline, words)


def _round(size: float) -> float:
    return round(size * 2) / 2


def key(text: str) -> str:
    """A heading's text for comparing: letters and digits only."""
    return "".join(ch for ch in text.casefold() if ch.isalnum())


class BlockBuilder:
    """Takes lines in reading order, gives blocks. A paragraph that goes on in the next column or page stays one."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._blocks: list[Block] = []
        self._kind = BlockKind.PARAGRAPH
        self._level = 0
        self._page = 1
        self._run: list[Line] = []
        self._open: int | None = None
        """Index of the last paragraph of body size, if its sentence is not at its end."""

    def page(self, page: Page, lines: list[Line]) -> None:
        """Add the lines of a page."""
        regions: dict[int, list[Line]] = {}
        for line in lines:
            regions.setdefault(line.region, []).append(line)
        for region in regions.values():
            self._region(region, page.number)
        self._flush()
        for text in page.aside:
            if len(text) >= 200:  # a table turned on its side; shorter ones are stamps and labels of axes
                self._blocks.append(Block(BlockKind.PARAGRAPH, clean(text.replace(HYPHEN, "-")), page.number))

    def finish(self) -> list[Block]:
        """All blocks."""
        self._flush()
        return [block for block in self._blocks if block.text]

    def _region(self, lines: list[Line], number: int) -> None:
        pitch = _pitch(lines)
        tables = _table_rows(lines)
        previous: Line | None = None
        for index, line in enumerate(lines):
            if index in tables:
                self._flush()
                if tables[index]:
                    text = " | ".join(clean(_LEADER.sub(" ", cell.replace(HYPHEN, "-"))) for cell in tables[index])
                    if any(ch.isalnum() for ch in text):
                        self._blocks.append(Block(BlockKind.TABLE_ROW, text, number))
                previous = None
                continue
            following = lines[index + 1] if index + 1 < len(lines) else None
            level = self._heading_level(line, previous, following, pitch)
            if (
                self._kind is BlockKind.HEADING
                and self._run
                and previous is not None
                and self._same_heading(line, previous)
            ):
                level = self._level
            kind = BlockKind.HEADING if level else _kind(line)
            if self._starts(line, previous, kind, level, pitch):
                self._flush()
                self._kind, self._level, self._page = kind, level, number
            self._run.append(line)
            previous = line
        self._flush()

    def _starts(self, line: Line, previous: Line | None, kind: BlockKind, level: int, pitch: float) -> bool:
        """Whether `line` begins a new block rather than going on with the current one."""
        if previous is None or not self._run:
            return True
        gap = line.y0 - previous.y0
        if kind is BlockKind.HEADING or self._kind is BlockKind.HEADING:
            return not (kind is self._kind and level == self._level and self._same_heading(line, previous))
        if kind is BlockKind.CODE or self._kind is BlockKind.CODE:
            return kind is not self._kind or gap > 3 * pitch
        if kind is BlockKind.LIST_ITEM or gap > 1.4 * pitch or gap < -pitch:
            return True
        if abs(line.size - previous.size) > 0.12 * self._style.body and min(len(line.text), len(previous.text)) > 3:
            return True
        ended = previous.text.rstrip().endswith(_SENTENCE_END)
        if self._kind is BlockKind.LIST_ITEM:
            return (
                line.x0 < self._run[0].x0 + 0.3 * line.size and ended and previous.x1 < previous.right - 3 * line.size
            )
        inner, outer = (line.left, line.x0) if not line.rtl else (line.x1, line.right)
        indented = outer - inner > 0.7 * line.size and not _indented(previous)
        short = (previous.right - previous.x1 if not line.rtl else previous.x0 - previous.left) > 0.25 * (
            line.right - line.left
        )
        if _LEADER.search(previous.text) or _LEADER.search(line.text):
            return True
        return (indented and (ended or short)) or (short and ended) or (short and bool(_CAPTION.match(line.text)))

    def _heading_level(self, line: Line, previous: Line | None, following: Line | None, pitch: float) -> int:
        """The depth of a heading from 1, or 0 for what is none. The outline knows best, then numbers, then the size."""
        text = clean(line.text.replace(HYPHEN, "-"))
        letters = sum(ch.isalpha() for ch in text)
        if (
            letters < 2
            or len(text) > _LONGEST_HEADING
            or letters < (0.25 if _SECTION.match(text) else 0.4) * len(text.replace(" ", ""))
        ):
            return 0
        if line.mono and line.size <= _LARGER * self._style.body:
            return 0
        bookmarked = self._style.outline.get(key(text))
        if bookmarked and (
            line.bold or line.size > 1.02 * self._style.body or previous is None or not _LEADER.search(text)
        ):
            return min(6, bookmarked)
        if _LEADER.search(text) or text[0].islower() or _CAPTION.match(text) or _BULLET.match(text):
            return 0
        larger = line.size >= _LARGER * self._style.body
        if not larger and not (_ROMAN.fullmatch(text) and _centred(line)):
            if not line.bold or line.size < 0.95 * self._style.body or text.endswith((",", ";", "-")):
                return 0
            alone = previous is None or line.y0 - previous.y0 > 1.15 * pitch or previous.bold
            goes_on = following is not None and following.bold and following.y0 - line.y0 < 1.3 * pitch
            known = bool(_SECTION.match(text) or _FIXED_HEADING.fullmatch(text))
            if not known and (
                not alone or goes_on or len(text) > 100 or text.endswith((".", ":")) or len(line.cells) > 1
            ):
                return 0
        numbered = _SECTION.match(text)
        if numbered and (numbered[1].isupper() or numbered[1][0].isdigit()) and not text.endswith("."):
            return min(6, numbered[1].count(".") + 2)
        if _ROMAN.fullmatch(text):
            return 2
        if larger:
            rank = next((i for i, size in enumerate(self._style.sizes) if _round(line.size) >= size * 0.97), 4)
            return min(6, rank + 1)
        return min(6, len(self._style.sizes) + 2)

    def _same_heading(self, line: Line, previous: Line) -> bool:
        """Whether `line` goes on with the heading that `previous` belongs to: same type, no wide space between."""
        return (
            abs(line.size - previous.size) < 0.5
            and line.bold == previous.bold
            and (line.bold or line.size > 1.05 * self._style.body)
            and 0 <= line.y0 - previous.y0 < 1.7 * line.size
            and not _SECTION.match(line.text)
            and not _CAPTION.match(line.text)
        )

    def _flush(self) -> None:
        lines, self._run = self._run, []
        if not lines:
            return
        if self._kind is BlockKind.CODE:
            code = clean_code("\n".join(_indent(line, lines) + line.text.replace(HYPHEN, "-") for line in lines))
            if _CODE_CHARACTERS.search(code):
                self._blocks.append(Block(BlockKind.CODE, code, self._page))
                return
            self._kind = BlockKind.PARAGRAPH
        text = self._join([line.text for line in lines])
        if self._kind is BlockKind.HEADING and (len(text) > 1.5 * _LONGEST_HEADING or _is_sentence(text)):
            self._kind, self._level = BlockKind.PARAGRAPH, 0  # text in large letters
        if not any(ch.isalnum() for ch in text):
            return
        body = abs(lines[0].size - self._style.body) <= 0.08 * self._style.body
        prose = self._kind in (BlockKind.PARAGRAPH, BlockKind.LIST_ITEM)
        if self._open is not None and prose and body and self._kind is BlockKind.PARAGRAPH and _goes_on(text):
            before = self._blocks[self._open]
            joined = self._join([before.text, text])
            self._blocks[self._open] = Block(before.kind, joined, before.page, before.level)
            if joined.endswith(_SENTENCE_END):
                self._open = None
            return
        self._blocks.append(Block(self._kind, text, self._page, self._level))
        if self._kind is BlockKind.HEADING:
            self._open = None
        elif prose and body and (len(lines) > 1 or len(text) > 60):  # not a label in a figure
            full = lines[-1].x1 > lines[-1].right - 0.2 * (lines[-1].right - lines[-1].left)
            ends = text.endswith(_SENTENCE_END) or not full
            self._open = None if ends else len(self._blocks) - 1

    def _join(self, texts: list[str]) -> str:
        """Lines to one text; a word that was cut at the end of a line is put together."""
        joined = ""
        for text in texts:
            text = clean(_LEADER.sub(" ", text)) if HYPHEN not in text else clean_hyphens(text)
            if joined.endswith(("-", HYPHEN, "\u00ad", "‐")) and text[:1].isalpha():
                joined = self._dehyphenated(joined, text)
            else:
                joined = f"{joined} {text}" if joined and text else joined or text
        return clean(joined.replace(HYPHEN, "-"))

    def _dehyphenated(self, before: str, after: str) -> str:
        """``repre-`` + ``sentation`` is one word; ``pre-`` + ``trained`` is two if the document writes it so elsewhere."""
        stem = before[:-1]
        left = re.search(r"[^\W\d_]+(?:-[^\W\d_]+)*$", stem)
        right = _WORD.match(after)
        if not left or not right or not after[0].islower():
            return f"{stem}-{after}"
        words = self._style.words
        hyphened, whole = f"{left[0]}-{right[0]}".lower(), f"{left[0]}{right[0]}".lower()
        if words[hyphened] != words[whole]:
            compound = words[hyphened] > words[whole]
        else:  # neither is known: two words that are used by themselves make a compound
            compound = "-" in left[0] or (len(left[0]) > 3 and words[left[0].lower()] > 0 < words[right[0].lower()])
        return f"{stem}-{after}" if compound else f"{stem}{after}"


def clean_hyphens(text: str) -> str:
    """`clean`, with the mark of a line's hyphen kept at the end and made a plain hyphen elsewhere."""
    marked = text.rstrip().endswith(HYPHEN)
    cleaned = clean(text.rstrip().rstrip(HYPHEN).replace(HYPHEN, "-"))
    return cleaned + HYPHEN if marked else cleaned


def _is_sentence(text: str) -> bool:
    return len(text) > 100 and text.endswith((".", "!", "?")) and text.count(" ") > 15


def _kind(line: Line) -> BlockKind:
    if line.mono:
        return BlockKind.CODE
    text = line.text.replace(HYPHEN, "-").lstrip()
    if _BULLET.match(text) or _ENUMERATED.match(text):
        return BlockKind.LIST_ITEM
    return BlockKind.PARAGRAPH


def _goes_on(text: str) -> bool:
    """Whether a text that begins a column can be the rest of a sentence."""
    return (
        text[:1].islower() or (text[:1] in "(,;–—[" and len(text) > 3) or (text[:1].isalpha() and not text[0].isupper())
    )


def _centred(line: Line) -> bool:
    before, after = line.x0 - line.left, line.right - line.x1
    return before > line.size and abs(before - after) < 0.1 * (line.right - line.left)


def _indented(line: Line) -> bool:
    return (line.right - line.x1 if line.rtl else line.x0 - line.left) > 0.7 * line.size


def _indent(line: Line, lines: list[Line]) -> str:
    left = min(other.x0 for other in lines)
    width = 0.6 * max(line.size, 1.0)
    return " " * min(40, round((line.x0 - left) / width))


def _pitch(lines: list[Line]) -> float:
    """The usual distance from one line to the next."""
    steps = [b.y0 - a.y0 for a, b in itertools.pairwise(lines) if 0.5 * a.size < b.y0 - a.y0 < 2.5 * a.size]
    return median(steps) if steps else 1.2 * max((line.size for line in lines), default=10.0)


def _table_rows(lines: list[Line]) -> dict[int, list[str]]:
    """Index of a line -> its cells, for the lines of tables; [] for those that went into the row above."""
    found: dict[int, list[str]] = {}
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and _tabular(lines, end, start):
            end += 1
        rows = lines[start:end]
        if sum(len(row.cells) > 1 for row in rows) >= 2 and _aligned(rows):
            found |= _rows_of(rows, start)
        start = max(end, start + 1)
    return found


def _tabular(lines: list[Line], index: int, start: int) -> bool:
    """Whether a line can belong to a table that begins at `start`: cells, or a cell's further lines between rows."""
    line = lines[index]
    if any(_LEADER.search(cell.text) for cell in line.cells) or _MARK.fullmatch(line.cells[0].text.strip()):
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


def _aligned(rows: list[Line]) -> bool:
    """Whether the cells stand in columns: most begin, end or centre where a cell of another row does."""
    many = [row for row in rows if len(row.cells) > 1]
    if any(len(row.cells) > 2 for row in many) and len(many) >= 2:
        need = 0.4
    else:
        need = 0.7
        if median(max(cell.width for cell in row.cells) / max(row.right - row.left, 1) for row in many) > 0.75:
            return False
    hits = total = 0
    for row in many:
        others = [cell for other in many if other is not row for cell in other.cells]
        for cell in row.cells:
            total += 1
            near = 0.6 * cell.size
            hits += any(
                abs(cell.x0 - o.x0) < near or abs(cell.x1 - o.x1) < near or abs(cell.x0 + cell.x1 - o.x0 - o.x1) < near
                for o in others
            )
    return hits >= need * total


def _rows_of(rows: list[Line], start: int) -> dict[int, list[str]]:
    """The cells of each row; a line without a first cell close below a row goes on with that row's cells."""
    found: dict[int, list[str]] = {}
    owner: list[Piece] = []
    at = start
    for offset, row in enumerate(rows):
        index = start + offset
        first = max((r.cells[0] for r in rows), key=lambda cell: -cell.x0)
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
