"""Plain text parser: encoding, paragraphs, and underlined or numbered headings."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from app.errors import DocumentRejected
from app.ingest.formats.clean import clean, clean_code, title_from_name
from app.ingest.formats.limits import Limits
from app.ingest.formats.table import readable
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 200_000
_BLANK = re.compile(r"\n[ \t\u00a0]*(?:\n[ \t\u00a0]*)+")
_UNDERLINE = re.compile(r"([=\-~^\"*+#])\1{2,}")
_LIST = re.compile(r"(?:[-*+•‣▪–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s+\S")
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+[^\W\d_]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def decode(data: bytes, *, whole: bool = True) -> str:
    """Decode bytes of unknown encoding: byte order mark, else UTF-8, else UTF-16 by its zero bytes, else by statistics.

    With `whole` False the end of `data` may cut a character. Raises:
        DocumentRejected: ``unsupported-type``: the bytes are not text.
    """
    return _decoded(data, whole)[0]


def encoding_of(sample: bytes) -> str:
    """Return the encoding of a file from its beginning (Python's name), found as by `decode`.

    Raises:
        DocumentRejected: ``unsupported-type``: the bytes are not text.
    """
    return _decoded(sample, False)[1]


def _decoded(data: bytes, whole: bool) -> tuple[str, str]:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace"), encoding
    zeros = data[:4096].count(0)
    if zeros:
        return _utf16_by_zeros(data[: len(data) // 2 * 2], zeros)
    encoding = "utf-8"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError:
        best = from_bytes(data[:_SAMPLE], steps=10, chunk_size=1024).best()
        if best is None:
            raise _binary() from None
        text, encoding = data.decode(best.encoding, "replace"), best.encoding
    if len(_CONTROL.findall(text[:_SAMPLE])) > len(text[:_SAMPLE]) / 100:
        raise _binary()
    return text, encoding


def _utf16_by_zeros(data: bytes, zeros: int) -> tuple[str, str]:
    head = data[:4096]
    odd = head[1::2].count(0)
    encoding = "utf-16-le" if odd > zeros / 2 else "utf-16-be"
    if max(odd, zeros - odd) < 0.9 * zeros or zeros < len(head) / 10:
        raise _binary()
    text = data.decode(encoding, "replace")
    if len(_CONTROL.findall(text[:_SAMPLE])) + text[:_SAMPLE].count("\ufffd") > len(text[:_SAMPLE]) / 100:
        raise _binary()
    return text, encoding


def _binary() -> DocumentRejected:
    return DocumentRejected(f"binary data, not text; supported are {readable()}", reason="unsupported-type")


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse paragraphs separated by blank lines; a single short line that is underlined or numbered is a heading.

    Raises:
        DocumentRejected: ``unsupported-type`` (binary data), ``empty``.
    """
    text = re.sub(r"\r\n?|\x0c", "\n", decode(data)).expandtabs(8)
    blocks: list[Block] = []
    underlines: list[str] = []
    for paragraph in _BLANK.split(text):
        blocks += _blocks([line for line in paragraph.split("\n") if line.strip()], underlines)
    if not blocks:
        raise DocumentRejected("the file contains no text", reason="empty")
    first = blocks[0]
    title = first.text if first.kind is BlockKind.HEADING else title_from_name(name)
    return ParsedDocument(title=title, blocks=tuple(blocks), source_type=SourceType.TEXT)


def _blocks(lines: list[str], underlines: list[str]) -> list[Block]:
    """Return the blocks between two blank lines.

    Args:
        lines: lines between them.
        underlines: characters that have underlined headings so far, by level (as in RST); new ones are added.
    """
    headings: list[Block] = []
    at = 0
    while (
        len(lines) > at + 1 and (under := _UNDERLINE.fullmatch(lines[at + 1].strip())) and len(lines[at].strip()) <= 120
    ):
        if under[1] not in underlines:
            underlines.append(under[1])
        if text := clean(lines[at]):
            headings.append(Block(BlockKind.HEADING, text, level=min(6, underlines.index(under[1]) + 1)))
        at += 2
    return [*headings, *_text_blocks(lines[at:])]


def _text_blocks(lines: list[str]) -> list[Block]:
    if not lines:
        return []
    if len(lines) == 1 and len(lines[0]) <= 100 and not lines[0].rstrip().endswith((".", ",", ";", ":")):
        numbered = _NUMBERED.match(lines[0].strip())
        if numbered:
            return [Block(BlockKind.HEADING, clean(lines[0]), level=min(6, numbered[1].count(".") + 1))]
    if all(line.startswith("    ") for line in lines) and any(re.search(r"[{}();=<>\[\]]", line) for line in lines):
        return [Block(BlockKind.CODE, clean_code("\n".join(lines)))]
    if any(_LIST.match(line.lstrip()) for line in lines):
        return _list_items(lines)
    joined = clean(" ".join(lines))
    return [Block(BlockKind.PARAGRAPH, joined)] if joined and any(ch.isalnum() for ch in joined) else []


def _list_items(lines: list[str]) -> list[Block]:
    items: list[tuple[BlockKind, list[str]]] = []
    for line in lines:
        if _LIST.match(line.lstrip()):
            items.append((BlockKind.LIST_ITEM, [line]))
        elif items:
            items[-1][1].append(line)
        else:
            items.append((BlockKind.PARAGRAPH, [line]))
    return [Block(kind, text) for kind, parts in items if (text := clean(" ".join(parts)))]
