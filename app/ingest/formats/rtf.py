"""RTF reader, by striprtf: paragraphs, rows of tables, headings by outline level or as bold lines."""

from __future__ import annotations

import re

from striprtf.striprtf import rtf_to_text

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE
from app.ingest.formats.clean import clean, sensible_title, title_from_name
from app.ingest.formats.limits import Limits
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_PICTURE = re.compile(r"(?i)(?:[0-9a-f]{2}\s*+){200,}+")
_TITLE = re.compile(r"\{\\title ([^{}\\]{1,300})\}")
_OUTLINE = re.compile(r"\\outlinelevel([0-8])(?![0-9]) ?")
_BOLD_LINE = re.compile(
    r"(\\b(?![a-z0-9])(?:\\[a-z]+-?\d*)*+ ?)([^\\{}\r\n]{2,120})(?=\\b0(?:\\(?!par\b)[a-z]+-?\d* ?|\s)*+\\par\b)"
)
_MARK = "\ue000"
"""Begins a heading, followed by its level; a private character, which `clean` removes from other texts."""
_LIST = re.compile(r"^(?:[•▪·‣-]|\(?(?:\d{1,3}|[a-z])[.)])\s+")


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse paragraphs, tables and headings; no pictures, headers or footers.

    Raises:
        DocumentRejected: ``broken``, ``empty``.
    """
    source, pictures = _PICTURE.subn("", data.decode("latin-1"))
    marked = _OUTLINE.sub(lambda found: f"{found[0].rstrip()}\\u57344?{int(found[1]) + 1} ", source)
    marked = _BOLD_LINE.sub(r"\1\\u57344?1 \2", marked)
    try:
        text = rtf_to_text(marked, errors="replace")
    except (*DAMAGE, ArithmeticError) as error:
        raise DocumentRejected(
            f"the RTF is damaged ({type(error).__name__}): save it again", reason="broken"
        ) from error
    blocks = tuple(block for line in text.splitlines() if (block := _block(line)))
    if not blocks:
        raise DocumentRejected("the file contains no text", reason="empty")
    titled = _TITLE.search(source)
    heading = next((block.text for block in blocks[:20] if block.kind is BlockKind.HEADING), "")
    return ParsedDocument(
        title=sensible_title(titled[1] if titled else "") or heading or title_from_name(name),
        blocks=blocks,
        source_type=SourceType.RTF,
        warnings=(f"{pictures:,} picture{'s' if pictures > 1 else ''} not read",) if pictures else (),
    )


def _block(line: str) -> Block | None:
    line = line.strip()
    if line.endswith("|"):
        cells = [clean(cell) for cell in line[:-1].split("|")]
        return Block(BlockKind.TABLE_ROW, " | ".join(cells).strip()) if any(cells) else None
    marked = re.match(rf"{_MARK}+(\d) ", line)
    text = clean(line[marked.end() :] if marked else line)
    if not any(ch.isalnum() for ch in text):
        return None
    if marked and not text.endswith((".", ",", ";")):
        return Block(BlockKind.HEADING, text, level=min(6, int(marked[1])))
    return Block(BlockKind.LIST_ITEM if _LIST.match(text) else BlockKind.PARAGRAPH, text)
