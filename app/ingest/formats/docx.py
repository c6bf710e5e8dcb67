"""DOCX parser: blocks in text order, from Word's own structure: styles, outline levels, numbering."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby

import docx
from docx.document import Document as WordDocument
from docx.opc.exceptions import OpcError
from lxml import etree

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE, open_office
from app.ingest.formats.clean import clean, clean_code, sensible_title, title_from_name
from app.ingest.formats.docx_text import W, is_on, shape_texts, text_boxes, text_of
from app.ingest.formats.limits import Limits
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_HEADING_NAME = re.compile(
    r"(?i)^(?:heading|überschrift|titre|título|titolo|kop|rubrik|заголовок|标题|見出し)\s*(\d)\b"
)
_CODE_STYLE = re.compile(
    r"(?i)^((source|program) ?code|code([ _-]?(block|text|box|line|listing))?|(html )?preformatted( text)?|"
    r"macro text|console|verbatim|listing)$"
)
_CODE_CHARACTERS = re.compile(r"[{}();=<>\[\]#$\\|]|\w_\w")
_LIST_STYLE = re.compile(r"(?i)^(list|liste|lista|lijst|listen)\b")
_MONOSPACE = re.compile(r"(?i)courier|consolas|mono|menlo|lucida console|source code|cascadia|typewriter")
_MAX_DEPTH = 60
_MAX_STYLES = 30
"""Maximum depth of base styles; Word's own go four deep."""
_DAMAGE = (OpcError, *DAMAGE)
"""Errors of python-docx and lxml for malformed parts."""
_TRANSPARENT = frozenset({"sdt", "sdtContent", "customXml", "smartTag", "ins", "moveTo", "AlternateContent", "Choice"})


def open_word(data: bytes, limits: Limits) -> WordDocument:
    """Open a checked container with python-docx.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``.
    """
    try:
        return docx.Document(open_office(data, limits))
    except _DAMAGE as error:
        raise DocumentRejected(
            f"the Word file is damaged ({type(error).__name__}): open it in Word and save it again", reason="broken"
        ) from error


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse headings, paragraphs, lists, tables, text boxes, equations, footnotes; no comments, page headers or
    footers.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``, ``empty``, ``no-text`` (pictures only).
    """
    word = open_word(data, limits)
    reader = _Reader(word)
    blocks = tuple(_join_code(reader.body()))
    if not blocks:
        pictures = next(word.element.iter("{*}blip", "{*}imagedata"), None) is not None
        raise DocumentRejected(
            "it contains pictures but no text" if pictures else "the document contains no text",
            reason="no-text" if pictures else "empty",
        )
    title = sensible_title(str(_property(word, "title"))) or reader.title or _first_heading(blocks)
    modified = _property(word, "modified")
    return ParsedDocument(
        title=title or title_from_name(name),
        blocks=blocks,
        source_type=SourceType.DOCX,
        timestamp=modified.replace(tzinfo=UTC) if isinstance(modified, datetime) else None,
        tags=tuple(t for part in re.split("[,;]", str(_property(word, "keywords"))) if (t := clean(part))),
        warnings=tuple(reader.warnings),
    )


def _property(word: WordDocument, name: str) -> object:
    try:
        # python-docx would invent properties for a file without any
        had = any(relation.reltype.endswith("/core-properties") for relation in word.part.package.rels.values())
        return (had and getattr(word.core_properties, name)) or ""
    except _DAMAGE:
        return ""  # a damaged docProps/core.xml loses only its fields


def _first_heading(blocks: tuple[Block, ...]) -> str:
    heading = next((block for block in blocks[:20] if block.kind is BlockKind.HEADING), None)
    return heading.text if heading else ""


class _Style:
    """Properties of a paragraph style, including those of its base styles."""

    __slots__ = ("code", "heading", "listed", "title")

    def __init__(self, chain: list[etree._Element]) -> None:
        names = [str(n.get(f"{W}val") or "") for style in chain if (n := style.find(f"{W}name")) is not None]
        self.title = bool(names) and names[0].lower() == "title"
        self.heading = 0
        for style, name in zip(chain, [*names, *[""] * len(chain)], strict=False):
            if found := _HEADING_NAME.match(name):
                self.heading = int(found[1])
            else:
                outline = style.find(f"{W}pPr/{W}outlineLvl")
                self.heading = _outline(outline) if outline is not None else 0
            if self.heading:
                break
        self.listed = any(_LIST_STYLE.match(name) for name in names[:1]) or any(
            style.find(f"{W}pPr/{W}numPr") is not None for style in chain
        )
        self.code = any(_CODE_STYLE.search(name) for name in names[:2])


def _outline(element: etree._Element) -> int:
    value = element.get(f"{W}val", "9")
    return int(value) + 1 if re.fullmatch("[0-8]", value) else 0


class _Reader:
    """Walks the body. Footnotes follow the paragraph that refers to them."""

    def __init__(self, word: WordDocument) -> None:
        self._word = word
        self._styles: dict[str, _Style] = {}
        self.title = ""
        self.warnings: list[str] = []
        self._in_code = False

    @cached_property
    def _style_elements(self) -> dict[str, etree._Element]:
        try:
            styles = self._word.styles.element
        except _DAMAGE:
            self.warnings.append(
                "the styles of the file can't be read: headings are recognised by their formatting only"
            )
            return {}
        return {style.get(f"{W}styleId", ""): style for style in styles.iter(f"{W}style")}

    @cached_property
    def _notes(self) -> dict[tuple[str, str], etree._Element]:
        notes: dict[tuple[str, str], etree._Element] = {}
        for kind in ("footnote", "endnote"):
            for relation in self._word.part.rels.values():
                if relation.reltype.endswith(f"/{kind}s") and not relation.is_external:
                    try:
                        root = etree.fromstring(relation.target_part.blob, etree.XMLParser(resolve_entities=False))
                    except _DAMAGE:
                        self.warnings.append(f"the {kind}s can't be read: left out")
                        continue
                    notes |= {(kind, note.get(f"{W}id", "")): note for note in root.iter(f"{W}{kind}")}
        return notes

    def _style(self, paragraph: etree._Element) -> _Style:
        style = paragraph.find(f"{W}pPr/{W}pStyle")
        key = style.get(f"{W}val", "") if style is not None else ""
        if key not in self._styles:
            chain: list[etree._Element] = []
            at = self._style_elements.get(key)
            while at is not None and len(chain) < _MAX_STYLES and at not in chain:
                chain.append(at)
                based = at.find(f"{W}basedOn")
                at = self._style_elements.get(based.get(f"{W}val", "")) if based is not None else None
            self._styles[key] = _Style(chain)
        return self._styles[key]

    def body(self) -> Iterator[Block]:
        body = self._word.element.find(f"{W}body")
        if body is not None:
            yield from self._blocks(body, 0)

    def _blocks(self, container: etree._Element, depth: int) -> Iterator[Block]:
        if depth > _MAX_DEPTH:
            raise DocumentRejected("its tables or text boxes are nested too deeply", reason="broken")
        loose = True
        for child in container:
            name = etree.QName(child).localname if isinstance(child.tag, str) else ""
            if name == "p":
                yield from self._paragraph(child, depth)
            elif name == "tbl":
                yield from self._table(child, depth)
            elif name in _TRANSPARENT:
                yield from self._blocks(child, depth + 1)
            elif loose and name in ("oMathPara", "oMath", "r", "hyperlink"):
                if text := clean(text_of(container)):
                    yield Block(BlockKind.PARAGRAPH, text)
                    return
                loose = False  # the same for all children

    def _paragraph(self, paragraph: etree._Element, depth: int) -> Iterator[Block]:
        raw = text_of(paragraph)
        text = clean(raw)
        style = self._style(paragraph)
        if text:
            yield from self._own_block(paragraph, style, raw, text)
        for box in text_boxes(paragraph):
            yield from self._blocks(box, depth + 1)
        for shape in shape_texts(paragraph):
            yield Block(BlockKind.PARAGRAPH, clean(shape))
        for kind in ("footnote", "endnote"):
            for reference in paragraph.iter(f"{W}{kind}Reference"):
                note = self._notes.get((kind, reference.get(f"{W}id", "")))
                if note is not None and (text := clean(" ".join(text_of(part) for part in note.iter(f"{W}p")))):
                    yield Block(BlockKind.PARAGRAPH, f"Note: {text}")

    def _own_block(self, paragraph: etree._Element, style: _Style, raw: str, text: str) -> Iterator[Block]:
        properties = paragraph.find(f"{W}pPr")
        outline = properties.find(f"{W}outlineLvl") if properties is not None else None
        level = _outline(outline) if outline is not None else style.heading
        numbering = properties.find(f"{W}numPr/{W}numId") if properties is not None else None
        numbered = numbering.get(f"{W}val") != "0" if numbering is not None else style.listed
        code = self._monospaced(paragraph)
        if style.title:
            self.title = self.title or text
            yield Block(BlockKind.HEADING, text, level=1)
        elif level and len(text) <= 300:
            yield Block(BlockKind.HEADING, text, level=min(6, level))
        elif style.code or (code and (self._in_code or _CODE_CHARACTERS.search(text))):
            self._in_code = True
            yield Block(BlockKind.CODE, clean_code(raw))
            return
        elif numbered:
            yield Block(BlockKind.LIST_ITEM, text)
        elif _all_bold(paragraph) and len(text) <= 100 and text[-1] not in ".,;:!?" and text[0].isupper():
            yield (
                Block(BlockKind.HEADING, text, level=6)
                if depth_of(paragraph) == 0
                else Block(BlockKind.PARAGRAPH, text)
            )
        else:
            yield Block(BlockKind.PARAGRAPH, text)
        self._in_code = False

    @staticmethod
    def _monospaced(paragraph: etree._Element) -> bool:
        runs = [run for run in paragraph.iter(f"{W}r") if any((t.text or "").strip() for t in run.iter(f"{W}t"))]
        fonts = [run.find(f"{W}rPr/{W}rFonts") for run in runs]
        return bool(fonts) and all(font is not None and _MONOSPACE.search(font.get(f"{W}ascii", "")) for font in fonts)

    def _table(self, table: etree._Element, depth: int) -> Iterator[Block]:
        """Yield rows as ``a
        b
        c``. A single cell is a box around text; a vertically merged cell is emitted once.
        """
        kept = (row for row in _children(table, f"{W}tr") if row.find(f"{W}trPr/{W}del") is None)
        rows = [list(_children(row, f"{W}tc")) for row in kept]
        if sum(len(row) for row in rows) == 1 or max((len(row) for row in rows), default=0) == 1:
            for row in rows:
                for cell in row:
                    yield from self._blocks(cell, depth + 1)
            return
        for row in rows:
            texts = []
            for cell in row:
                merge = cell.find(f"{W}tcPr/{W}vMerge")
                goes_on = merge is not None and merge.get(f"{W}val", "continue") == "continue"
                texts.append("" if goes_on else self._cell(cell, depth))
            if any(texts):
                yield Block(BlockKind.TABLE_ROW, " | ".join(texts).strip())

    def _cell(self, cell: etree._Element, depth: int) -> str:
        parts = [" ; ".join(line.strip() for line in block.text.split("\n")) for block in self._blocks(cell, depth + 1)]
        return clean(" ".join(parts))


def depth_of(paragraph: etree._Element) -> int:
    """Return the number of tables and text boxes around a paragraph."""
    return sum(1 for _ in paragraph.iterancestors(f"{W}tbl", f"{W}txbxContent"))


def _children(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    for child in parent:
        if child.tag == tag:
            yield child
        elif isinstance(child.tag, str) and etree.QName(child).localname in _TRANSPARENT:
            yield from _children(child, tag)


def _all_bold(paragraph: etree._Element) -> bool:
    runs = [run for run in paragraph.iter(f"{W}r") if any((t.text or "").strip() for t in run.iter(f"{W}t"))]
    return bool(runs) and all(is_on(run.find(f"{W}rPr/{W}b")) for run in runs)


def _join_code(blocks: Iterator[Block]) -> Iterator[Block]:
    """Join consecutive lines of code to one block."""
    for is_code, run in groupby(blocks, key=lambda block: block.kind is BlockKind.CODE):
        if is_code:
            yield Block(BlockKind.CODE, "\n".join(block.text for block in run))
        else:
            yield from run
