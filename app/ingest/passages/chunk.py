"""Chunking: cuts a parsed document into passages of similar size, at places where a reader would cut.

The document's blocks are joined to one text and tokenised once (in windows of limited size); the rest is arithmetic on
token offsets. Each section (the blocks below one heading; each page of a slide deck) becomes a row of units that should
not be cut: sentences, list items, table rows, code lines. The cut of a section has a cost: each passage costs by its
distance from the target size, and each cut by its place: nothing between paragraphs, little between sentences, more
inside a list or table, most inside a sentence; continuing on another page costs extra. Dynamic programming finds the
cheapest cut exactly (as Knuth and Plass break a paragraph into lines).
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from app.passage import Block, BlockKind, ParsedDocument, SourceType
from app.sentences import sentence_spans

TokenOffsets = Callable[[str], Sequence[tuple[int, int]]]
"""Text -> (start, end) in characters of each of its tokens, in order: `Encoder.token_offsets`."""

MINIMUM = 100
MAXIMUM = 300
HEADING_SEPARATOR = " > "
LONGEST_HEADING = 200
"""Maximum characters of a heading; a longer one is a misdetected paragraph (and the keyword field has a limit)."""

_WINDOW = 100_000
"""Characters tokenised in one call, which limits the memory of the tokenizer's own structures."""
_CHARACTERS_A_TOKEN = 20
"""Limits a passage to MAXIMUM times this many characters, because a token can stand for a word of any length."""
_LONGEST_HEADER = 60
"""Maximum tokens of a table's first row to repeat at the start of each passage of the table."""

_MIN_UNIT_TOKENS = 8
"""Number of tokens below which a unit is merged into the next."""

# costs of cuts; a passage of twice the target size costs 1.0
_PARAGRAPH, _SENTENCE, _ITEM, _ROW, _LINE, _CLAUSE, _WORD, _HEADING = 0.0, 0.05, 0.3, 0.3, 0.2, 1.0, 2.0, 8.0
_SMALL_PASSAGE_COST = 1.0
_PAGE_BREAK_COST = 0.5
"""Cost of a passage on several pages: on a single page, its page number is right for every sentence."""

# Western marks also occur inside numbers and times ("3,000", "12:30"), so white space must follow
_CLAUSE_END = re.compile(r"(?<=[;:,|\u2013\u2014])\s+|(?<=[\u060c\u3001\uff0c\uff1b])\s*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Draft:
    """A passage without an identity. `token_count` counts `text` alone, without title and heading."""

    section_heading: str
    page: int | None
    position: int
    text: str
    token_count: int
    pages: tuple[int, ...] = ()
    """All pages of `text`, ascending; `page` is where it begins."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A stretch of the text that should not be cut; `cost` is the cost of a cut before it."""

    start: int
    end: int
    cost: float
    page: int | None
    prose: bool
    header: tuple[int, int] | None = None
    heading: bool = False


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str
    units: list[_Unit]


def chunk(
    document: ParsedDocument,
    offsets: TokenOffsets,
    *,
    target: int = 200,
    overlap: int = 0,
    room: int = MAXIMUM,
    language: str | None = None,
) -> list[Draft]:
    """Cut `document` into passages of 100 to 300 tokens, none across a heading.

    A passage has fewer than 100 tokens only if its whole section has, or if long sentences beside it force that.

    Args:
        offsets: the embedding model's tokenizer.
        target: target number of tokens of a passage.
        overlap: maximum tokens of whole sentences repeated from the previous passage; never across a heading.
        room: tokens that the model reads (its window less the special ones); title and heading share it, and a passage
            that would be read only in part costs more.
        language: code of the language whose rules for sentences hold; None: English.
    """
    tape = _DocumentText(document, offsets, language)
    drafts: list[Draft] = []
    sections = tape.sections
    if document.source_type is SourceType.JSON and len(sections) == 1 and tape.size(0, len(tape.text)) <= MAXIMUM:
        sections = [
            replace(sections[0], units=_merged(sections[0].units))
        ]  # a ready document that is already a passage
    title = len(offsets(document.title))
    for section in sections:
        heading = len(offsets(section.heading)) if section.heading else 0
        ends = _cut(section.units, tape, target, overlap, room - title - heading)
        begin = 0
        for end in ends:
            draft = _draft(section, begin, end, tape, overlap, len(drafts))
            if draft.text:
                drafts.append(draft)
            begin = end
    return drafts


def _draft(section: _Section, begin: int, end: int, tape: _DocumentText, overlap: int, position: int) -> Draft:
    units = section.units
    first = _overlap_start(units, begin, tape, overlap)
    start, last = units[first].start, units[end - 1].end
    text, count = tape.text[start:last].strip(), tape.tokens(start, last)
    if header := _repeated_header(units, begin, tape):
        text = f"{tape.text[header[0] : header[1]]}\n{text}"
        count += tape.tokens(*header)
    page = next((unit.page for unit in units[begin:end] if not unit.heading), units[begin].page)
    pages = {unit.page for unit in units[first:end] if unit.page is not None}
    return Draft(section.heading, page, position, text, count, tuple(sorted(pages)))


def _merged(units: list[_Unit]) -> list[_Unit]:
    return [replace(units[0], end=units[-1].end)]


def _overlap_start(units: list[_Unit], begin: int, tape: _DocumentText, overlap: int) -> int:
    """Return the first unit of a passage that begins at unit `begin`, including whole sentences of the previous one."""
    first = begin
    while (
        overlap
        and first > 0
        and units[first].cost < _CLAUSE  # a cut sentence has no whole sentence before it
        and units[first - 1].prose
        and units[first - 1].cost < _CLAUSE
        and units[begin].prose
        and tape.size(units[first - 1].start, units[begin - 1].end) <= overlap
    ):
        first -= 1
    return first


def _repeated_header(units: list[_Unit], begin: int, tape: _DocumentText) -> tuple[int, int] | None:
    header = units[begin].header
    if header is None or header[0] >= units[begin].start:
        return None
    small = tape.size(*header) <= _LONGEST_HEADER
    fits = tape.size(*header) + tape.size(units[begin].start, units[begin].end) <= MAXIMUM
    return header if small and fits else None


def _cut(units: list[_Unit], tape: _DocumentText, target: int, overlap: int, room: int) -> list[int]:
    """Return the ends (exclusive, indices of units) of the passages of the cheapest cut."""
    best = [0.0] + [float("inf")] * len(units)
    came_from = [0] * (len(units) + 1)
    comfortable = max(room, target)
    ends = [(unit.end, tape.token(unit.end)) for unit in units]
    for begin, unit in enumerate(units):
        base = best[begin] + (unit.cost if begin else 0.0)
        start = units[_overlap_start(units, begin, tape, overlap)].start
        header = _repeated_header(units, begin, tape)
        extra = tape.size(*header) if header else 0
        first = tape.token(start)
        for end in range(begin + 1, len(units) + 1):
            at, token = ends[end - 1]
            size = max(token - first, (at - start) // _CHARACTERS_A_TOKEN) + extra
            if size > MAXIMUM and end > begin + 1:
                break
            cost = base + ((size - target) / target) ** 2
            if size < MINIMUM:
                cost += _SMALL_PASSAGE_COST + (MINIMUM - size) / MINIMUM
            if size > comfortable:
                cost += 2 * (size - comfortable) / target
            if units[end - 1].page != unit.page:
                cost += _PAGE_BREAK_COST
            if cost < best[end]:
                best[end], came_from[end] = cost, begin
    cuts = [len(units)]
    while came_from[cuts[-1]]:
        cuts.append(came_from[cuts[-1]])
    return cuts[::-1]


class _DocumentText:
    """A document's text in one string, the positions of its tokens, and its sections as units."""

    def __init__(self, document: ParsedDocument, offsets: TokenOffsets, language: str | None) -> None:
        self._language = language
        blocks = [replace(block, text=block.text.strip()) for block in document.blocks]
        blocks = [block for block in blocks if block.text]
        self._slides = document.source_type in (SourceType.PPTX, SourceType.ODP)
        self._title = _plain(document.title)
        places: list[tuple[Block, int]] = []
        parts: list[str] = []
        at = 0
        for previous, block in zip([None, *blocks], blocks, strict=False):
            separator = "" if previous is None else _separator(previous.kind, block.kind)
            parts += (separator, block.text)
            places.append((block, at + len(separator)))
            at += len(separator) + len(block.text)
        self.text = "".join(parts)
        self._starts = array("q", _token_starts(self.text, offsets))
        self.sections = list(self._sections(places))

    def token(self, at: int) -> int:
        """Return the number of tokens that begin before `at`."""
        return bisect_left(self._starts, at)

    def tokens(self, start: int, end: int) -> int:
        """Return the number of tokens that begin in ``text[start:end]``."""
        return self.token(end) - self.token(start)

    def size(self, start: int, end: int) -> int:
        """Return the number of tokens, or more for text that is far longer than its tokens (one word of 10,000
        letters).
        """
        return max(self.tokens(start, end), (end - start) // _CHARACTERS_A_TOKEN)

    def _sections(self, places: list[tuple[Block, int]]) -> Iterator[_Section]:
        """Yield sections in reading order.

        A heading with nothing below it begins the text of the next section; at the end of the document it ends the text
        of the last one; on a slide it is the slide's text.
        """
        path: list[Block] = []
        empty: list[tuple[Block, int]] = []  # headings on the path without any content so far
        pending: list[_Unit] = []  # headings with nothing below them
        body: list[tuple[Block, int]] = []
        held: _Section | None = None
        page: int | None = None

        def close() -> Iterator[_Section]:
            nonlocal pending, body, held
            if not body:
                return
            if held:
                yield held
            units = self._units(body)
            if pending:
                units[0] = replace(units[0], cost=_HEADING)
            held = _Section(self._heading(path), pending + units)
            pending, body = [], []

        for block, at in places:
            if self._slides and block.page != page:
                yield from close()
                if empty:
                    if held:
                        yield held
                    held = _Section("", self._headings(empty))
                path, empty, page = [], [], block.page
            if block.kind is not BlockKind.HEADING or len(block.text) > LONGEST_HEADING:
                body.append((block, at))
                empty = []
                continue
            yield from close()
            level = max(1, block.level)
            pending += self._headings([item for item in empty if max(1, item[0].level) >= level])
            pending.sort(key=lambda unit: unit.start)  # a chapter can turn out to be empty after the sections in it
            empty = [item for item in empty if max(1, item[0].level) < level] + [(block, at)]
            path = [item for item in path if max(1, item.level) < level] + [block]
        yield from close()
        rest = sorted(pending + self._headings(empty), key=lambda unit: unit.start)
        if rest and held and not self._slides:
            held.units.extend(rest)
        elif rest:
            if held:
                yield held
            held = _Section("", rest)
        if held:
            yield held

    def _heading(self, path: list[Block]) -> str:
        names = [_plain(block.text) for block in path]
        if len(names) > 1 and names[0] == self._title:
            names = names[1:]
        return HEADING_SEPARATOR.join(names)

    def _headings(self, places: list[tuple[Block, int]]) -> list[_Unit]:
        units = []
        for block, at in places:
            units += self._split_long(_Unit(at, at + len(block.text), _HEADING, block.page, False, heading=True))
        return units

    def _units(self, places: list[tuple[Block, int]]) -> list[_Unit]:
        units: list[_Unit] = []
        previous: BlockKind | None = None
        header: tuple[int, int] | None = None
        for block, at in places:
            kind, end = block.kind, at + len(block.text)
            if kind is not BlockKind.TABLE_ROW:
                header = None
            elif previous is not BlockKind.TABLE_ROW:
                header = (at, end)
            cost = _ITEM if kind is BlockKind.LIST_ITEM and previous in _BEFORE_ITEM else _PARAGRAPH
            if kind is previous and kind in (BlockKind.TABLE_ROW, BlockKind.CODE):
                cost = _ROW
            if kind is BlockKind.TABLE_ROW:
                found = [_Unit(at, end, cost, block.page, False, header)]
            elif kind is BlockKind.CODE:
                found = [_Unit(at + a, at + b, _LINE, block.page, False) for a, b in _lines(block.text)]
            elif kind is BlockKind.LIST_ITEM:
                found = [_Unit(at, end, cost, block.page, False)]
            else:
                found = self._prose(block, at)
            found[0] = replace(found[0], cost=cost)
            for unit in found:
                units += self._split_long(unit)
            previous = kind
        return self._merge_short_units(units)

    def _merge_short_units(self, units: list[_Unit]) -> list[_Unit]:
        """Merge very short units into the next: there is no good cut after "Yes.", and it saves time."""
        joined: list[_Unit] = []
        for unit in units:
            before = joined[-1] if joined else None
            if (
                before
                and self.size(before.start, before.end) < _MIN_UNIT_TOKENS
                and self.size(before.start, unit.end) <= MINIMUM
                and (before.prose, before.page, before.header) == (unit.prose, unit.page, unit.header)
            ):
                joined[-1] = replace(before, end=unit.end)
            else:
                joined.append(unit)
        return joined

    def _prose(self, block: Block, at: int) -> list[_Unit]:
        units = []
        for a, b, paragraph in sentence_spans(block.text, self._language):
            units.append(_Unit(at + a, at + b, _PARAGRAPH if paragraph else _SENTENCE, block.page, True))
        return units

    def _split_long(self, unit: _Unit) -> list[_Unit]:
        """Return the unit, or its sentences, clauses, words or stretches if it is longer than a passage may be."""
        if self.size(unit.start, unit.end) <= MAXIMUM:
            return [unit]
        text = self.text[unit.start : unit.end]
        if not unit.prose:
            spans = [(a, b) for a, b, _ in sentence_spans(text, self._language)]
            if len(spans) > 1:
                parts = self._split(unit, spans, _SENTENCE if unit.header is None else _CLAUSE)
                return [piece for part in parts for piece in self._split_long(replace(part, prose=True))]
        clauses = self._split(unit, _spans_between(text, _CLAUSE_END), _CLAUSE)
        pieces: list[_Unit] = []
        for clause in clauses:
            if self.size(clause.start, clause.end) <= MAXIMUM:
                pieces.append(clause)
                continue
            for word in self._split(clause, _spans_between(self.text[clause.start : clause.end], _SPACE), _WORD):
                pieces += self._stretches(word)
        return [replace(piece, prose=unit.prose) for piece in pieces]

    def _split(self, unit: _Unit, spans: Sequence[tuple[int, int]], cost: float) -> list[_Unit]:
        return [
            replace(unit, start=unit.start + a, end=unit.start + b, cost=unit.cost if i == 0 else cost)
            for i, (a, b) in enumerate(spans)
        ]

    def _stretches(self, word: _Unit) -> list[_Unit]:
        """Split a "word" longer than a passage (an encoded image, a script without spaces) between its tokens."""
        if self.size(word.start, word.end) <= MAXIMUM:
            return [word]
        starts = self._starts[bisect_left(self._starts, word.start) : bisect_left(self._starts, word.end)]
        longest = MINIMUM * _CHARACTERS_A_TOKEN
        cuts = [word.start]
        for i, at in enumerate(starts):
            if at > cuts[-1] and i % (MINIMUM // 2) == 0:
                cuts.append(at)
        cuts.append(word.end)
        spans: list[tuple[int, int]] = []
        for a, b in pairwise(cuts):
            spans += [(c, min(b, c + longest)) for c in range(a, b, longest)]
        return self._split(word, [(a - word.start, b - word.start) for a, b in spans], _WORD)


_BEFORE_ITEM = (BlockKind.LIST_ITEM, BlockKind.PARAGRAPH)
_TIGHT = frozenset({BlockKind.LIST_ITEM, BlockKind.TABLE_ROW, BlockKind.CODE})


def _separator(before: BlockKind, after: BlockKind) -> str:
    return "\n" if before is after and after in _TIGHT else "\n\n"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> list[tuple[int, int]]:
    spans, at = [], 0
    for line in text.splitlines(keepends=True):
        if line.strip():
            spans.append((at, at + len(line.rstrip())))
        at += len(line)
    return spans


def _spans_between(text: str, separator: re.Pattern[str]) -> list[tuple[int, int]]:
    """Return the non-empty spans of `text` between the matches of `separator`."""
    spans, at = [], 0
    for match in separator.finditer(text):
        if match.start() > at:
            spans.append((at, match.start()))
        at = match.end() if match.start() > at or match.end() > match.start() else at
    if at < len(text):
        spans.append((at, len(text)))
    return spans


def _token_starts(text: str, offsets: TokenOffsets) -> Iterator[int]:
    at = 0
    while at < len(text):
        end = min(len(text), at + _WINDOW)
        if end < len(text):
            # windows end at white space, which no token spans
            space = max(text.rfind(" ", at + 1, end), text.rfind("\n", at + 1, end))
            end = space if space > at else end
        for start, _ in offsets(text[at:end]):
            yield at + start
        at = end
