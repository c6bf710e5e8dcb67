"""PPTX parser: a slide is a page, its title a heading; the speaker's notes follow the slide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pptx
from lxml import etree
from pptx.exc import PythonPptxError
from pptx.presentation import Presentation

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE, open_office
from app.ingest.formats.clean import clean, sensible_title, title_from_name
from app.ingest.formats.docx_text import MC, is_outermost, math
from app.ingest.formats.limits import Limits
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMath"
_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "ftr", "sldNum", "hdr"})
_MAX_POINTS = 60
_MAX_DEPTH = 40
_DAMAGE = (PythonPptxError, *DAMAGE)
"""Errors of python-pptx and lxml for malformed parts."""


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse all slides, including hidden ones (the author wrote them, too; a warning names them).

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``, ``empty``, ``no-text`` (pictures only).
    """
    try:
        deck = pptx.Presentation(open_office(data, limits))
        parts = [deck.part.related_part(slide.rId) for slide in deck.slides._sldIdLst]
        slides = [_root(part) for part in parts]
    except _DAMAGE as error:
        raise DocumentRejected(
            f"the PowerPoint file is damaged ({type(error).__name__}): open it and save it again", reason="broken"
        ) from error
    blocks: list[Block] = []
    hidden: list[int] = []
    pictures = False
    for number, (part, slide) in enumerate(zip(parts, slides, strict=True), 1):
        if slide.get("show") in ("0", "false"):
            hidden.append(number)
        pictures = pictures or next(slide.iter(f"{_A}blip"), None) is not None
        blocks += _slide(part, slide, number)
    if not blocks:
        raise DocumentRejected(
            "its slides contain pictures but no text" if pictures else "there is no text on its slides",
            reason="no-text" if pictures else "empty",
        )
    heading = next((block for block in blocks if block.kind is BlockKind.HEADING and block.page == 1), None)
    title = sensible_title(str(_property(deck, "title"))) or (heading.text if heading else "")
    modified = _property(deck, "modified")
    return ParsedDocument(
        title=title or title_from_name(name),
        blocks=tuple(blocks),
        source_type=SourceType.PPTX,
        timestamp=modified.replace(tzinfo=UTC) if isinstance(modified, datetime) else None,
        tags=tuple(tag for part in str(_property(deck, "keywords")).split(",") if (tag := clean(part))),
        warnings=(f"hidden slides are included: {', '.join(map(str, hidden))}",) if hidden else (),
    )


def _property(deck: Presentation, name: str) -> Any:
    try:
        # python-pptx would invent properties for a file without any
        had = any(relation.reltype.endswith("/core-properties") for relation in deck.part.package._rels.values())
        return (had and getattr(deck.core_properties, name)) or ""
    except _DAMAGE:
        return ""


def _root(part: Any) -> etree._Element:
    element = getattr(part, "_element", None)
    return element if element is not None else etree.fromstring(part.blob, etree.XMLParser(resolve_entities=False))


def _slide(part: Any, slide: etree._Element, number: int) -> Iterator[Block]:
    tree = slide.find(f"{_P}cSld/{_P}spTree")
    shapes = list(_shapes(tree, 0)) if tree is not None else []
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES]
    text = clean(" ".join(" ".join(_paragraphs(shape)) for shape in titles))
    if text:
        yield Block(BlockKind.HEADING, text, page=number, level=1)
    rest = sorted((shape for shape in shapes if _placeholder(shape) not in _TITLES | _FURNITURE), key=_reading_order)
    for shape in rest:
        for kind, words in _shape(part, shape):
            if words:
                yield Block(kind, words, page=number)
    for relation in part.rels.values():
        if relation.reltype.endswith("/notesSlide") and not relation.is_external:
            notes = _related(part, relation.rId)
            if notes is not None:
                yield from _notes(notes, number)


def _shapes(container: etree._Element, depth: int) -> Iterator[etree._Element]:
    """Yield the shapes of a slide; a group's shapes take the place of the group."""
    for child in container:
        name = etree.QName(child).localname if isinstance(child.tag, str) else ""
        if name in ("sp", "graphicFrame", "pic", "cxnSp"):
            yield child
        elif name == "grpSp" and depth < _MAX_DEPTH:
            yield from _shapes(child, depth + 1)
        elif child.tag == f"{MC}AlternateContent" and depth < _MAX_DEPTH:
            choice = child.find(f"{MC}Choice")
            yield from _shapes(child if choice is None else choice, depth + 1)


def _placeholder(shape: etree._Element) -> str:
    found = next(shape.iter(f"{_P}ph"), None)
    return "" if found is None else found.get("type", "body")


def _reading_order(shape: etree._Element) -> tuple[int, int, int]:
    """Return a sort key: top to bottom in bands of 1 cm, then left to right; inherited positions come first."""
    offset = next(shape.iter(f"{_A}off"), None)
    grouped = next(shape.iterancestors(f"{_P}grpSp"), None)
    # coordinates inside a group are relative to the group, so its shapes stay in the group's place
    if grouped is not None:
        while (outer := next(grouped.iterancestors(f"{_P}grpSp"), None)) is not None:
            grouped = outer
        offset = grouped.find(f"{_P}grpSpPr/{_A}xfrm/{_A}off")
    if offset is None:
        return (0, 0, 0)
    return (1, _number(offset.get("y")) // 360_000, _number(offset.get("x")))


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _shape(part: Any, shape: etree._Element) -> Iterator[tuple[BlockKind, str]]:
    chart = next(shape.iter(f"{_C}chart"), None)
    if chart is not None:
        yield from ((BlockKind.PARAGRAPH, text) for text in _chart(part, chart.get(f"{_R}id", "")))
        return
    table = next(shape.iter(f"{_A}tbl"), None)
    if table is not None:
        for row in table.iter(f"{_A}tr"):
            cells = [clean(" ".join(_paragraphs(cell))) for cell in row.findall(f"{_A}tc")]
            if any(cells):
                yield BlockKind.TABLE_ROW, " | ".join(cells).strip()
        return
    diagram = next((e for e in shape.iter() if isinstance(e.tag, str) and e.tag.endswith("}relIds")), None)
    if diagram is not None:
        yield from ((BlockKind.LIST_ITEM, text) for text in _diagram(part, diagram.get(f"{_R}dm", "")))
        return
    paragraphs = [text for text in map(clean, _paragraphs(shape)) if text]
    listed = _placeholder(shape) in ("body", "obj") and len(paragraphs) > 1
    for text in paragraphs:
        yield BlockKind.LIST_ITEM if listed else BlockKind.PARAGRAPH, text
    if not paragraphs and etree.QName(shape).localname == "pic":
        described = next(shape.iter(f"{_P}cNvPr"), None)
        text = clean(described.get("descr") or "") if described is not None else ""
        if len(text.split()) > 2 and "generated" not in text.lower():  # not PowerPoint's generated description
            yield BlockKind.PARAGRAPH, text


def _paragraphs(element: etree._Element) -> Iterator[str]:
    for paragraph in element.iter(f"{_A}p"):
        pieces: list[str] = []
        for piece in paragraph.iter(f"{_A}t", f"{_A}br", _MATH):
            if piece.tag == f"{_A}t":
                pieces.append(piece.text or "")
            elif piece.tag == f"{_A}br":
                pieces.append(" ")
            elif is_outermost(piece):
                pieces.append(f" {math(piece)} ")
        if pieces:
            yield "".join(pieces)


def _related(part: Any, key: str) -> etree._Element | None:
    try:
        return _root(part.related_part(key))
    except _DAMAGE:
        return None


def _chart(part: Any, key: str) -> Iterator[str]:
    """Yield a chart's title, the titles of its axes, and each series with its values by category."""
    root = _related(part, key)
    if root is None:
        return
    for title in root.iter(f"{_C}title"):
        yield clean(" ".join(t.text or "" for t in title.iter(f"{_A}t")))
    for series in root.iter(f"{_C}ser"):
        name = _cached(series, "tx")
        categories, values = _cached(series, "cat", "xVal"), _cached(series, "val", "yVal")
        pairs = [f"{a}: {b}" for a, b in zip(categories, values, strict=False)] or categories or values
        shown = ", ".join(pairs[:_MAX_POINTS])
        yield clean(f"{' '.join(name)}: {shown}" if name else shown)


def _cached(series: etree._Element, *names: str) -> list[str]:
    holders: Iterable[etree._Element] = (h for name in names for h in series.findall(f"{_C}{name}"))
    return [clean(value.text or "") for holder in holders for value in holder.iter(f"{_C}v")]


def _diagram(part: Any, key: str) -> list[str]:
    """Return the texts of SmartArt."""
    root = _related(part, key)
    return [] if root is None else [clean(text) for text in _paragraphs(root)]


def _notes(notes: etree._Element, number: int) -> Iterator[Block]:
    bodies = [shape for shape in notes.iter(f"{_P}sp") if _placeholder(shape) == "body"]
    text = clean(" ".join(" ".join(_paragraphs(shape)) for shape in bodies))
    if text:
        yield Block(BlockKind.NOTES, text, page=number)
