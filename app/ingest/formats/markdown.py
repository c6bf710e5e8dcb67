"""Markdown parser (CommonMark with GFM's tables, front matter): rendered to HTML, then parsed as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import cache

import frontmatter
import yaml
from markdown_it import MarkdownIt

from app.errors import DocumentRejected
from app.ingest.formats.clean import clean, sensible_title, title_from_name
from app.ingest.formats.html import extract, parse_date, read_html, replace_between
from app.ingest.formats.limits import Limits
from app.ingest.formats.plaintext import decode
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_LARGEST_FRONT_MATTER = 20_000
_MAX_BITS = 256
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_ALIAS = re.compile(r"(?m)(?:^|[\s\[{,:-])[&*][A-Za-z0-9_]+")
_COMMENT = re.compile("<!--"), re.compile("-->")


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse text under its headings; `title`, `tags` and `date` of the front matter become the document's.

    Raises:
        DocumentRejected: ``empty``, ``unsupported-type`` (binary data).
    """
    text = decode(data)
    fields, body, warnings = _front_matter(text)
    rendered = _markdown().render(replace_between(body, *_COMMENT, lambda _: ""))
    blocks: tuple[Block, ...] = ()
    if rendered.strip():
        blocks = tuple(extract(read_html(f"<html><body>{rendered}</body></html>")))
    if not blocks:
        raise DocumentRejected("the file contains no text", reason="empty")
    given = fields.get("title")
    title = sensible_title(_scalar(given))
    return ParsedDocument(
        title=title or _first_heading(blocks) or title_from_name(name),
        blocks=blocks,
        source_type=SourceType.MARKDOWN,
        timestamp=_date(fields),
        tags=_tags(fields),
        warnings=warnings,
    )


def _front_matter(text: str) -> tuple[dict[str, object], str, tuple[str, ...]]:
    """Return the fields, the text without them, and warnings. Malformed front matter is not treated as text."""
    found = _FRONT.match(text)
    if not found or ":" not in found[1]:
        return {}, text, ()
    body = text[found.end() :]
    if len(found[1]) > _LARGEST_FRONT_MATTER:
        return {}, body, (f"front matter ignored: longer than {_LARGEST_FRONT_MATTER:,} characters",)
    if _ALIAS.search(found[1]) and re.search(r"(?:^|[\s\[,-])\*\w", found[1]):
        # a few nested aliases expand to billions of values
        return {}, body, ("front matter ignored: YAML aliases are not supported",)
    try:
        fields, _ = frontmatter.parse(f"---\n{found[1]}\n---\n")
    except (
        yaml.YAMLError,
        # errors of PyYAML's constructors: `!!int ""`, `!!bool x`, `!!timestamp x`, 1e999 as a date
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        return {}, body, (f"front matter ignored: {clean(str(error))[:200]}",)
    return dict(fields), body, ()


def _first_heading(blocks: Iterable[Block]) -> str:
    first = next((block for block in blocks if block.kind is BlockKind.HEADING), None)
    return first.text if first and first.level <= 2 else ""


def _tags(fields: dict[str, object]) -> tuple[str, ...]:
    values: list[object] = []
    for key in ("tags", "keywords", "categories"):
        value = fields.get(key)
        values += value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    tags = (clean(_scalar(value)).lstrip("#") for value in values)
    return tuple(dict.fromkeys(tag for tag in tags if tag))


def _scalar(value: object) -> str:
    """Return a string or number as text; empty for anything else, and for a number too long for `str`."""
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return ""
    return str(value) if isinstance(value, str | int | float) else ""


def _date(fields: dict[str, object]) -> datetime | None:
    for key in ("updated", "lastmod", "modified", "last_modified_at", "date", "created"):
        value = fields.get(key)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, str) and (found := parse_date(value)):
            return found
    return None
