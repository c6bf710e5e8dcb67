"""The data that travels from a file to the store: a parsed document, its blocks, its passages."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson

from app.access import AccessChange

PASSAGE_FORMAT = 2
"""Raised when parsing, chunking or the stored fields change, so that unchanged files are ingested anew."""


class SourceType(StrEnum):
    """Where a passage came from; the values of the `source_type` field."""

    PDF = "pdf"
    PPTX = "pptx"
    DOCX = "docx"
    HTML = "html"
    MARKDOWN = "markdown"
    TEXT = "text"
    JSON = "json"


class BlockKind(StrEnum):
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE_ROW = "table_row"
    CODE = "code"
    NOTES = "notes"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document in reading order. `page` counts from 1 (slide number in slides); None where there are none.

    `level` is the heading depth (1 = top) for headings, 0 otherwise.
    """

    kind: BlockKind
    text: str
    page: int | None = None
    level: int = 0


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a parser returns: a title, blocks in reading order, and what the file says of itself."""

    title: str
    blocks: tuple[Block, ...]
    source_type: SourceType
    timestamp: datetime | None = None
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A document on its way into the store: identity and access beside the parsed content."""

    document_id: str
    source_id: str
    uri: str
    parsed: ParsedDocument
    tags: tuple[str, ...] = ()
    tenant: str = "default"
    acl: tuple[str, ...] = ("public",)
    keeps_acl: bool = False
    """The source names no readers: `acl` is for a new document, one that is there keeps its own."""
    restrictions: AccessChange = field(default_factory=dict)
    """Those of `acl_1` ... `acl_4` that the source names."""
    timestamp: datetime | None = None
    language: str | None = None
    """Of its text, as `language_tag` gives it; None: not known."""
    whole: bool = False
    """True for a ready passage that must be stored as one passage, whatever its length."""

    @property
    def access(self) -> AccessChange:
        """The lists of readers that the source names; a new document is everybody's in the others."""
        return {**({} if self.keeps_acl else {"acl": self.acl}), **self.restrictions}

    def content_hash(self, recipe: str) -> str:
        """Names the content: SHA-256 (hex) over everything that decides what is stored, but the readers.

        `recipe` names chunking and embedding settings.
        """
        payload = {
            "format": PASSAGE_FORMAT,
            "recipe": recipe,
            "title": self.parsed.title,
            "type": self.parsed.source_type,
            "blocks": [[b.kind, b.text, b.page, b.level] for b in self.parsed.blocks],
            "source_id": self.source_id,
            "uri": self.uri,
            "tags": sorted(self.tags),
            "tenant": self.tenant,
            "timestamp": self.timestamp,
            "language": self.language,
            "whole": self.whole,
        }
        return hashlib.sha256(orjson.dumps(payload)).hexdigest()


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable unit; the fields are those of the index (`mappings/component_templates/braid-fields.json`).

    `content_hash` names the version that the passage belongs to (`ingest.protocol`); it and `id` are given when the
    passage is written.
    """

    id: str
    document_id: str
    source_id: str
    source_type: SourceType
    uri: str
    title: str
    section_heading: str
    text: str
    page: int | None
    position: int
    token_count: int
    timestamp: datetime
    topic_tags: tuple[str, ...]
    tenant: str
    acl: tuple[str, ...]
    content_hash: str
    embedding_model: str
    embedding: Sequence[float] | None = field(default=None, repr=False)
    token_vectors: bytes | None = field(default=None, repr=False)
    """Packed by `embedding.token_vectors`."""
    acl_1: tuple[str, ...] = ()
    acl_2: tuple[str, ...] = ()
    acl_3: tuple[str, ...] = ()
    acl_4: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()
    """All pages that its text stands on, ascending; `page` is where it begins."""
    language: str | None = None

    def embedding_text(self) -> str:
        """The text that is embedded."""
        return embedding_text(self.title, self.section_heading, self.text)


def embedding_text(title: str, section_heading: str, text: str) -> str:
    """What is embedded of a passage: title, heading and text, as in the lexical leg's combined field."""
    return " ".join(part for part in dict.fromkeys((title, section_heading, text)) if part)


def not_blank(value: str) -> str:
    """`value` as it is.

    Raises:
        ValueError: it is white space, or holds NUL characters (which OpenSearch refuses).
    """
    if not value.strip():
        raise ValueError("must hold at least one character that is not white space")
    if "\x00" in value:
        raise ValueError("must not hold NUL characters")
    return value


def without_control_characters(value: str) -> str:
    """`value` as it is; ids are shown in terminals, logs and URLs.

    Raises:
        ValueError: it holds control characters, or halves of characters.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError(f"{value!r} holds control characters: leave them out")
    return value


MOST_READERS = 1000
"""Entries of one access list."""
LONGEST_READER = 261
"""Characters: a group's 256, and those of ``user:`` before a user's."""


def reader(value: str) -> str:
    """One entry of an access list as it is: names are compared code point by code point, never folded or trimmed.

    Raises:
        ValueError: it is blank, too long, or holds control characters, line separators or halves of characters.
    """
    if len(value) > LONGEST_READER:
        raise ValueError(f"must have at most {LONGEST_READER} characters")
    if any(unicodedata.category(character) in ("Zl", "Zp") for character in value):
        raise ValueError(f"{value!r} holds line separators: leave them out")
    return without_control_characters(not_blank(value))


def readers(values: Sequence[str]) -> tuple[str, ...]:
    """An access list; an empty one leaves the document to the operator and to admins.

    Raises:
        ValueError: more than 1000 entries, or as `reader`.
    """
    if len(values) > MOST_READERS:
        raise ValueError(f"must have at most {MOST_READERS} entries")
    return tuple(dict.fromkeys(reader(value) for value in values))


def restriction(values: Sequence[str]) -> tuple[str, ...]:
    """One of the further lists that a reader must satisfy. An absent one is open, so an empty one is refused.

    Raises:
        ValueError: it is empty, or as `readers`.
    """
    if not values:
        raise ValueError("is empty: name who satisfies it, or leave it out (PATCH with an empty list takes it away)")
    return readers(values)


LANGUAGE_PATTERN = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}$"


def language_tag(value: str) -> str:
    """The tag of a language (BCP 47, such as ``de`` or ``zh-Hant``) in lower case.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(LANGUAGE_PATTERN, value):
        raise ValueError(f"{value[:40]!r} is no language tag such as en, de or zh-hant (BCP 47)")
    return value.lower()


def passage_id(tenant: str, document_id: str, version: str, position: int) -> str:
    """The id of a passage (32 hex digits): another version of a document never overwrites the passages of this one.

    Its first half says which passage of which document it is, so that passages of equal scores keep their order when
    they are written anew; its second half comes from the version. Versions of an older Braid (without ``~``) have ids
    of one piece.
    """
    if "~" not in version:
        return _digest(tenant, document_id, version, str(position))[:32]
    return _digest(tenant, document_id, str(position))[:16] + _digest(version, str(position))[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage as one leg of a search ranked it: no more than what fusing needs."""

    id: str
    document_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage as a search found it. `score` orders the results; `scores` holds what each stage gave, where known."""

    id: str
    document_id: str
    title: str
    section_heading: str
    text: str
    source_id: str
    source_type: str
    uri: str
    page: int | None
    position: int
    timestamp: str | None
    topic_tags: tuple[str, ...]
    score: float
    lexical: float | None = None
    dense: float | None = None
    fused: float | None = None
    rerank: float | None = None
    content_hash: str = ""
    """The version of the document that the passage belongs to."""
    pages: tuple[int, ...] = ()
    language: str | None = None
