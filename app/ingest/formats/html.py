"""HTML parser: blocks of a page without its navigation and other furniture. Markdown passes through here, too."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby, islice

from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from app.errors import DocumentRejected
from app.ingest.formats.clean import clean, clean_code, sensible_title, title_from_name
from app.ingest.formats.limits import Limits
from app.ingest.formats.plaintext import decode
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_DROPPED = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "iframe",
        "object",
        "embed",
        "applet",
        "canvas",
        "audio",
        "video",
        "map",
        "nav",
        "button",
        "select",
        "option",
        "input",
        "textarea",
        "datalist",
        "dialog",
        "head",
        "title",
        "link",
        "meta",
        "base",
        "frame",
        "frameset",
    ]
)
_FURNITURE = frozenset({"header", "footer", "aside"})
_CONTENT = frozenset({"main", "article", "section", "blockquote", "td", "figure"})
"""A header, footer or aside inside one of these belongs to the content."""
_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menu", "menubar", "dialog", "alertdialog"})
_HIDDEN = re.compile(r"(?i)display\s*:\s*none|visibility\s*:\s*hidden")
_NOISE = re.compile(
    r"(?i)(^|[\s_-])(breadcrumbs?|breadcrumb-section|cookie-?(banner|consent|notice)|skip-?(link|nav|to-content)|"
    r"page-metadata|navbar|site-(header|footer|nav)|toc-macro|pagination|share-buttons|sr-only|visually-hidden)($|[\s_-])"
)
_BLOCK_TAGS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hgroup",
        "html",
        "legend",
        "main",
        "ol",
        "p",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
        "caption",
        "li",
        "pre",
        "hr",
        "br",
        "menu",
        "rich-text-body",
        "layout",
        "layout-section",
        "layout-cell",
    ]
) | frozenset(_HEADINGS)
# tags of Confluence's storage format contain no bare < or >, so a search that ends at either is linear
_CONFLUENCE_CODE = (
    re.compile(r"(?i)<ac:plain-text-body>\s*<!\[CDATA\["),
    re.compile(r"(?i)\]\]>\s*</ac:plain-text-body>"),
)
_CONFLUENCE_PARAMETER = re.compile(r"(?i)<ac:parameter\b[^<>]*(?<!/)>"), re.compile(r"(?i)</ac:parameter>")
_CONFLUENCE_LAYOUT = re.compile(r"(?i)<(/?)ac:(?:rich-text-body|layout(?:-section|-cell)?|structured-macro)\b[^<>]*>")
_CONFLUENCE_LINK = re.compile(r"(?i)<ri:(?:page|attachment)\b([^<>]*)>")
_CONFLUENCE_TITLE = re.compile(r"(?i)\bri:(?:content-title|filename)=\"([^\"]*)\"")
_TAG = re.compile(r"""<([a-zA-Z][^\s<>"'/]*+)((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)""")
_ATTRIBUTE = re.compile(r"""[^\s=<>"'/]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s<>"']++))?+""")
_LONG_TAG = 10_000
_MAX_ATTRIBUTES = 500
"""Maximum attributes per element; libxml2 walks all of them to add another, so that 200,000 take minutes."""
_CDATA = re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")
_DATES = (
    "article:modified_time",
    "last-modified",
    "dcterms.modified",
    "dc.date.modified",
    "date-modified",
    "article:published_time",
    "dcterms.date",
    "dc.date",
    "date",
    "pubdate",
)
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_CHARSET = re.compile(rb"(?i)<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([a-z0-9_\-:]+)")
_CHARACTER_SET = re.compile(
    r"utf-8(-sig)?|cp\d+|iso8859-\d+|koi8-[rtu]|mac-\w+|gb\w+|hz|big5\w*|euc_\w+|iso2022_\w+|shift_jis\w*|johab|"
    r"tis-620|ptcp154|kz1048"
)
"""Python's names of a page's possible character sets; its other codecs (undefined, punycode, unicode_escape) are
excluded."""
_MAX_DEPTH = 200


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse a page to what its reader sees.

    Raises:
        DocumentRejected: ``empty``, ``unsupported-type`` (binary data), ``broken`` (it contains no HTML).
    """
    root = read_html(_text(data))
    blocks = list(extract(root))
    if not blocks:
        raise DocumentRejected("the page contains no text", reason="empty")
    described = _meta(root, "description", "og:description")
    if described and not any(described.lower() in block.text.lower() for block in blocks[:5]):
        blocks.insert(0, Block(BlockKind.PARAGRAPH, described))
    return ParsedDocument(
        title=_title(root, blocks) or title_from_name(name),
        blocks=tuple(blocks),
        source_type=SourceType.HTML,
        timestamp=next((date for key in _DATES if (date := parse_date(_meta(root, key)))), None),
        tags=tuple(tag for part in _meta(root, "keywords").split(",") if (tag := clean(part))),
    )


def _text(data: bytes) -> str:
    """Decode like a browser: byte order mark, declared character set, else by the content."""
    declared = _CHARSET.search(data[:4096])
    if declared and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        try:
            encoding = codecs.lookup(declared[1].decode("ascii")).name
            # pages that declare Latin-1 mean Windows-1252 (WHATWG encoding standard)
            encoding = "cp1252" if encoding in ("iso8859-1", "ascii") else encoding
            if _CHARACTER_SET.fullmatch(encoding):
                return data.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)


def read_html(text: str) -> HtmlElement:
    """Return the tree of a page, however malformed; Confluence's storage format is converted to HTML.

    Raises:
        DocumentRejected: ``broken``.
    """
    text = _XML_DECLARATION.sub("", text).replace("\x00", "")
    if "<ac:" in text or "<ri:" in text:
        text = replace_between(text, *_CONFLUENCE_CODE, lambda code: f"<pre>{_escape(code)}</pre>")
        text = _CONFLUENCE_LINK.sub(_link_title, text)
        text = replace_between(text, *_CONFLUENCE_PARAMETER, lambda _: "")
        text = _CONFLUENCE_LAYOUT.sub(r"<\1div>", text)
        text = replace_between(text, *_CDATA, _escape)
    if not text.strip():
        raise DocumentRejected("the page contains no text", reason="empty")
    text = _TAG.sub(_with_fewer_attributes, text)
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=True)
    try:
        return document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError as error:
        raise DocumentRejected("the file contains no HTML", reason="empty") from error


def replace_between(text: str, begin: re.Pattern[str], end: re.Pattern[str], make: Callable[[str], str]) -> str:
    """Replace each stretch from `begin` to the next `end` by `make` of the text between them.

    A lazy expression (``begin.*?end``) would search for the end from each beginning, up to the end of a file without
    one: quadratic time.
    """
    parts, at = [], 0
    while (first := begin.search(text, at)) and (last := end.search(text, first.end())):
        parts += [text[at : first.start()], make(text[first.end() : last.start()])]
        at = last.end()
    return "".join([*parts, text[at:]])


def _with_fewer_attributes(tag: re.Match[str]) -> str:
    if len(tag[0]) < _LONG_TAG:
        return tag[0]
    kept = islice(_ATTRIBUTE.finditer(tag[2]), _MAX_ATTRIBUTES)
    return " ".join([f"<{tag[1]}", *(attribute[0] for attribute in kept)])


def _link_title(link: re.Match[str]) -> str:
    title = _CONFLUENCE_TITLE.search(link[1])
    return f"<span>{title[1]}</span>" if title else link[0]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def extract(root: HtmlElement) -> Iterator[Block]:
    """Yield the blocks of a tree in order, without the surroundings of the content."""
    yield from _merge(_walk(_content(root), 0, 0))


def _content(root: HtmlElement) -> HtmlElement:
    """Return the element with the content: the single <main>, if it has a fair share of all text; else the body."""
    body = root.find("body") if root.tag == "html" else root
    body = root if body is None else body
    mains = body.xpath(".//main | .//*[@role='main'] | .//div[@id='main-content']")
    if len(mains) == 1:
        inside, everything = len(clean(mains[0].text_content())), len(clean(body.text_content()))
        if inside * 4 >= everything > 0:
            main: HtmlElement = mains[0]
            return main
    return body


def _dropped(element: HtmlElement) -> bool:
    tag = element.tag
    if tag in _DROPPED or element.get("hidden") is not None or element.get("role") in _ROLES:
        return True
    if _HIDDEN.search(element.get("style") or ""):
        return True
    if _NOISE.search(element.get("class") or "") or _NOISE.search(element.get("id") or ""):
        return True
    return tag in _FURNITURE and not any(parent.tag in _CONTENT for parent in element.iterancestors())


_Piece = str | Block | None
"""Inline text, a block, or the end of a paragraph (None)."""


def _walk(element: HtmlElement, depth: int, lists: int) -> Iterator[_Piece]:
    """Walk depth first. Elements below `_MAX_DEPTH` are flattened to their text: real pages are not
    nested so deeply.
    """
    if depth > _MAX_DEPTH:
        yield " ".join(text for text in element.itertext() if isinstance(text, str))
        return
    if element.text:
        yield element.text
    for child in element:
        if isinstance(child.tag, str) and not _dropped(child):
            yield from _element(child, depth + 1, lists)
        if child.tail:
            yield child.tail


def _element(element: HtmlElement, depth: int, lists: int) -> Iterator[_Piece]:
    tag = element.tag.rsplit(":", 1)[-1] if isinstance(element.tag, str) else ""
    if tag in _HEADINGS:
        yield None
        text = clean("".join(_inline(element, depth)))
        if text:
            yield Block(BlockKind.HEADING, text, level=_HEADINGS[tag])
        yield None
    elif tag in ("pre", "listing", "xmp"):
        yield None
        if code := clean_code(_preformatted(element)):
            yield Block(BlockKind.CODE, code)
        yield None
    elif tag == "table":
        yield None
        yield from _table(element, depth, lists)
        yield None
    elif tag in ("li", "dt", "dd"):
        yield None
        yield from _item(element, depth, lists)
        yield None
    elif tag == "img":
        if alt := clean(element.get("alt") or ""):
            yield f" {alt} "
    elif tag == "br":
        yield "\n"
    elif tag in ("sup", "sub") and (text := element.text_content().strip()):
        yield from _walk(element, depth, lists) if len(text) > 3 else iter((text,))
    elif tag in _BLOCK_TAGS:
        yield None
        yield from _walk(element, depth, lists + (tag in ("ul", "ol", "dl", "menu")))
        yield None
    else:
        yield from _walk(element, depth, lists)


def _inline(element: HtmlElement, depth: int) -> Iterator[str]:
    for piece in _walk(element, max(depth, _MAX_DEPTH - 20), 0):
        yield f" {piece.text} " if isinstance(piece, Block) else piece or " "


def _preformatted(element: HtmlElement) -> str:
    for line_break in element.iter("br"):
        line_break.tail = "\n" + (line_break.tail or "")
    return str(element.text_content())


def _item(element: HtmlElement, depth: int, lists: int) -> Iterator[_Piece]:
    """Yield a list item as a block with its own text, followed by nested lists, code and tables as blocks."""
    blocks = _merge(_walk(element, depth, lists))
    for is_own, run in groupby(blocks, key=lambda block: block.kind is BlockKind.PARAGRAPH):
        if is_own:
            yield Block(BlockKind.LIST_ITEM, " ".join(block.text for block in run))
        else:
            yield from run


def _table(table: HtmlElement, depth: int, lists: int) -> Iterator[_Piece]:
    """Yield rows as ``a | b | c``; a table of one column, or with headings or tables inside, is only layout."""
    rows = [row for row in table.iter("tr") if next(row.iterancestors("table")) is table]
    cells = [[cell for cell in row if cell.tag in ("td", "th")] for row in rows]
    layout = any(True for _ in table.iterdescendants("table", "h1", "h2", "ul", "ol", "pre"))
    if max((len(row) for row in cells), default=0) < 2 or (layout and _has_prose(cells)):
        yield from _walk(table, depth, lists)
        return
    for caption in table.findall("caption"):
        yield "".join(_inline(caption, depth))
        yield None
    for row in cells:
        texts = [clean("".join(_inline(cell, depth))) for cell in row]
        if any(texts):
            yield Block(BlockKind.TABLE_ROW, " | ".join(texts).strip())


def _has_prose(cells: list[list[HtmlElement]]) -> bool:
    """Return whether a cell contains prose rather than a value."""
    return any(len(cell.text_content()) > 1500 for row in cells for cell in row)


def _merge(pieces: Iterator[_Piece]) -> Iterator[Block]:
    """Join inline text between two blocks to a paragraph."""
    for is_text, run in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if not is_text:
            yield from (piece for piece in run if isinstance(piece, Block))
        elif (text := clean("".join(map(str, run)))) and any(ch.isalnum() for ch in text):
            yield Block(BlockKind.PARAGRAPH, text)


def _meta(root: HtmlElement, *names: str) -> str:
    for element in root.iter("meta"):
        key = (element.get("name") or element.get("property") or element.get("http-equiv") or "").lower()
        if key in names and (content := clean(element.get("content") or "")):
            return content
    return ""


def _title(root: HtmlElement, blocks: list[Block]) -> str:
    """Return <title>, or else the page's first heading of the highest level."""
    for title in root.iter("title"):
        if text := sensible_title(title.text_content()):
            return text
    if text := sensible_title(_meta(root, "og:title", "dc.title", "dcterms.title")):
        return text
    headings = [block for block in blocks[:50] if block.kind is BlockKind.HEADING]
    return min(headings, key=lambda block: block.level).text if headings else ""


def parse_date(text: object) -> datetime | None:
    """Parse an ISO 8601 date or time (UTC if it has no zone); None if it is not one."""
    try:
        found = datetime.fromisoformat(str(text).strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
