"""Conversion of a PDF's lines to headings, paragraphs, list items, table rows and code."""

from __future__ import annotations

import itertools
import re
from statistics import median

from app.ingest.formats.clean import clean, clean_code
from app.ingest.formats.pdf_layout import Line, lines_of
from app.ingest.formats.pdf_page import HYPHEN, Page
from app.ingest.formats.pdf_style import BULLET, CAPTION, LEADER, LONGEST_HEADING, Style, join_lines
from app.ingest.formats.pdf_tables import table_rows
from app.passage import Block, BlockKind

_ENUMERATED = re.compile(r"(?:\(?\d{1,2}[.)]|\(?[a-z][.)]|\([ivx]{1,4}\)|\[\d{1,3}\])\s+\S")
_SENTENCE_END = (".", "!", "?", "…", ".”", '."', ".)", "。", "！", "？", "؟", "۔", ":", ";")
_CODE_CHARACTERS = re.compile(r"[{}();=<>\[\]#$\\|]|\w_\w|^\s*(def|class|import|return|for|if|while)\b")


class BlockBuilder:
    """Takes lines in reading order, returns blocks. A paragraph continued in the next column or
    page stays one block.
    """

    def __init__(self, style: Style) -> None:
        self._style = style
        self._blocks: list[Block] = []
        self._kind = BlockKind.PARAGRAPH
        self._level = 0
        self._page = 1
        self._run: list[Line] = []
        self._open: int | None = None
        """Index of the last paragraph in body size, if its sentence is unfinished."""

    def page(self, page: Page, lines: list[Line]) -> None:
        """Add the lines of a page."""
        regions: dict[int, list[Line]] = {}
        for line in lines:
            regions.setdefault(line.region, []).append(line)
        for region in regions.values():
            self._region(region, page.number)
        self._flush()
        for pieces in page.aside:
            aside = lines_of(pieces)
            # a table or text; shorter ones are stamps and labels of axes
            if table_rows(aside) or sum(len(line.text) for line in aside) >= 200:
                self._region(aside, page.number)
        for text in page.comments:
            self._blocks.append(Block(BlockKind.NOTES, clean(text), page.number))

    def finish(self) -> list[Block]:
        """Return all blocks."""
        self._flush()
        return [block for block in self._blocks if block.text]

    def _region(self, lines: list[Line], number: int) -> None:
        pitch = _pitch(lines)
        tables = table_rows(lines)
        previous: Line | None = None
        for index, line in enumerate(lines):
            if index in tables:
                self._flush()
                if tables[index]:
                    text = " | ".join(join_lines(cell.split("\n"), self._style.words) for cell in tables[index])
                    if any(ch.isalnum() for ch in text):
                        self._blocks.append(Block(BlockKind.TABLE_ROW, text, number))
                previous = None
                continue
            following = lines[index + 1] if index + 1 < len(lines) else None
            level = self._style.heading_level(line, previous, following, pitch)
            if (
                self._kind is BlockKind.HEADING
                and self._run
                and previous is not None
                and self._style.same_heading(line, previous)
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
        """Return whether `line` begins a new block instead of continuing the current one."""
        if previous is None or not self._run:
            return True
        gap = line.y0 - previous.y0
        if BlockKind.HEADING in (kind, self._kind):
            return not (kind is self._kind and level == self._level and self._style.same_heading(line, previous))
        if BlockKind.CODE in (kind, self._kind):
            return kind is not self._kind or gap > 3 * pitch
        if kind is BlockKind.LIST_ITEM or gap > 1.4 * pitch or gap < -pitch or self._changes_size(line, previous):
            return True
        if self._kind is BlockKind.LIST_ITEM:
            hangs = line.x0 >= self._run[0].x0 + 0.3 * line.size
            return not hangs and _ends_sentence(previous) and previous.x1 < previous.right - 3 * line.size
        return _starts_paragraph(line, previous)

    def _changes_size(self, line: Line, previous: Line) -> bool:
        differs = abs(line.size - previous.size) > 0.12 * self._style.body
        return differs and min(len(line.text), len(previous.text)) > 3

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
        text = join_lines([line.text for line in lines], self._style.words)
        if self._kind is BlockKind.HEADING and (len(text) > 1.5 * LONGEST_HEADING or _is_sentence(text)):
            self._kind, self._level = BlockKind.PARAGRAPH, 0  # text in large letters
        if not any(ch.isalnum() for ch in text):
            return
        body = abs(lines[0].size - self._style.body) <= 0.08 * self._style.body
        prose = self._kind in (BlockKind.PARAGRAPH, BlockKind.LIST_ITEM)
        if (
            self._open is not None
            and prose
            and body
            and self._kind is BlockKind.PARAGRAPH
            and _continues_sentence(text)
        ):
            before = self._blocks[self._open]
            joined = join_lines([before.text, text], self._style.words)
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


def _is_sentence(text: str) -> bool:
    return len(text) > 100 and text.endswith((".", "!", "?")) and text.count(" ") > 15


def _ends_sentence(line: Line) -> bool:
    return line.text.rstrip().endswith(_SENTENCE_END)


def _starts_paragraph(line: Line, previous: Line) -> bool:
    """Return whether a paragraph begins, by its indent or by the short last line of the previous one."""
    if LEADER.search(previous.text) or LEADER.search(line.text):
        return True  # each line of a table of contents is a block of its own
    indented = _is_indented(line) and not _is_indented(previous)
    room = previous.x0 - previous.left if line.rtl else previous.right - previous.x1
    short = room > 0.25 * (line.right - line.left)
    if short:
        return indented or _ends_sentence(previous) or bool(CAPTION.match(line.text))
    return indented and _ends_sentence(previous)


def _kind(line: Line) -> BlockKind:
    if line.mono:
        return BlockKind.CODE
    text = line.text.replace(HYPHEN, "-").lstrip()
    if BULLET.match(text) or _ENUMERATED.match(text):
        return BlockKind.LIST_ITEM
    return BlockKind.PARAGRAPH


def _continues_sentence(text: str) -> bool:
    """Return whether a text at the top of a column can be the rest of a sentence."""
    return (
        text[:1].islower() or (text[:1] in "(,;–—[" and len(text) > 3) or (text[:1].isalpha() and not text[0].isupper())
    )


def _is_indented(line: Line) -> bool:
    return (line.right - line.x1 if line.rtl else line.x0 - line.left) > 0.7 * line.size


def _indent(line: Line, lines: list[Line]) -> str:
    left = min(other.x0 for other in lines)
    width = 0.6 * max(line.size, 1.0)
    return " " * min(40, round((line.x0 - left) / width))


def _pitch(lines: list[Line]) -> float:
    """Return the usual distance between lines."""
    steps = [b.y0 - a.y0 for a, b in itertools.pairwise(lines) if 0.5 * a.size < b.y0 - a.y0 < 2.5 * a.size]
    return median(steps) if steps else 1.2 * max((line.size for line in lines), default=10.0)
