"""Data on the way from a file to the store: a parsed document, its blocks, its passages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import orjson

from app.access import ACCESS_FIELDS, AccessChange
from app.fields import Stored, stored_fields
from app.languages import base_language
from app.values import Language, PageNumber

PASSAGE_FORMAT = 3
"""Incremented when parsing, chunking or stored fields change, so that unchanged files are ingested again."""


class SourceType(StrEnum):
    """Type of a passage's source; values of the `source_type` field."""

    label: str

    def __new__(cls, value: str, label: str) -> SourceType:
        member = str.__new__(cls, value)
        member._value_, member.label = value, label
        return member

    PDF = "pdf", "PDF"
    PPTX = "pptx", "Slides"
    DOCX = "docx", "Word"
    HTML = "html", "HTML"
    MARKDOWN = "markdown", "Markdown"
    TEXT = "text", "Text"
    JSON = "json", "JSON"
    XLSX = "xlsx", "Sheets"
    CSV = "csv", "CSV"
    MAIL = "mail", "Mail"
    ODT = "odt", "OpenDocument text"
    ODS = "ods", "OpenDocument sheets"
    ODP = "odp", "OpenDocument slides"
    EPUB = "epub", "Book"
    RTF = "rtf", "RTF"


class BlockKind(StrEnum):
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE_ROW = "table_row"
    CODE = "code"
    NOTES = "notes"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document in reading order. `page` counts from 1 (slide number in slides), or is None without pages.

    `level` is the heading depth (1 = top) for headings, 0 otherwise.
    """

    kind: BlockKind
    text: str
    page: int | None = None
    level: int = 0


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Result of a parser: a title, blocks in reading order, and the file's metadata."""

    title: str
    blocks: tuple[Block, ...]
    source_type: SourceType
    timestamp: datetime | None = None
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A document to be stored: identity and access in addition to the parsed content."""

    document_id: str
    source_id: str
    uri: str
    parsed: ParsedDocument
    tags: tuple[str, ...] = ()
    tenant: str = "default"
    acl: tuple[str, ...] = ("public",)
    keeps_acl: bool = False
    """The source names no readers: `acl` is for a new document, an existing one keeps its own."""
    restrictions: AccessChange = field(default_factory=dict)
    """Those of `acl_1` ... `acl_4` that the source names."""
    timestamp: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Values of `EXTRA_FIELDS` that the source names."""
    whole: bool = False
    """True for a ready passage that must be stored as a single passage, whatever its length."""

    @property
    def access(self) -> AccessChange:
        """Return the access lists that the source names; for the others a new document is public."""
        return {**({} if self.keeps_acl else {"acl": self.acl}), **self.restrictions}

    def content_hash(self, recipe: str) -> str:
        """Return the SHA-256 (hex) of everything that determines the stored content, except the readers.

        `recipe` represents the settings of chunking and embedding.
        """
        extra = dict(self.extra)
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
            "language": extra.pop("language", None),
            "whole": self.whole,
        }
        if extra:  # documents without any keep the hash that they are stored with
            payload["extra"] = extra
        return hashlib.sha256(orjson.dumps(payload)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageContent:
    """Fields of a passage that searches read; `Passage` has the others."""

    id: Annotated[str, Stored("keyword", "Id of the passage", per_passage=True, in_source=False)]
    document_id: Annotated[str, Stored("keyword", "Document", filter="any of", returned=True, writable=True)]
    title: Annotated[str, Stored("text", "Title", returned=True, writable=True)]
    section_heading: Annotated[str, Stored("text", "Heading of the section", returned=True, per_passage=True)]
    text: Annotated[str, Stored("text", "Text", returned=True, writable=True, per_passage=True)]
    source_id: Annotated[str, Stored("keyword", "Source", filter="any of", returned=True, writable=True)]
    source_type: Annotated[str, Stored("keyword", "Type", filter="any of", returned=True, choices=SourceType)]
    uri: Annotated[str, Stored("keyword", "Address", returned=True, writable=True)]
    topic_tags: Annotated[tuple[str, ...], Stored("keyword", "Tag", filter="any of", returned=True, writable=True)]
    language: Annotated[
        str | None,
        Stored("keyword", "Language", filter="any of", returned=True, writable=True, value=Language),
    ] = None
    detected_language: Annotated[
        str | None, Stored("keyword", "Detected language, if certain", returned=True, per_passage=True)
    ] = None
    """Never filtered by: it is a guess. `language` is what the source states."""
    language_confidence: Annotated[
        float | None, Stored("float", "Confidence of the detection, 0 to 1", returned=True, per_passage=True)
    ] = None
    page: Annotated[int | None, Stored("integer", "Page where it begins", returned=True, per_passage=True)]
    pages: Annotated[
        tuple[int, ...],
        Stored("integer", "Page", filter="any of", returned=True, per_passage=True, value=PageNumber),
    ] = ()
    """All pages that it is on, ascending."""
    position: Annotated[int, Stored("integer", "Place in the document, from 0", internal=True, per_passage=True)]
    timestamp: Annotated[str | None, Stored("date", "Date", filter="range", returned=True, writable=True)]
    """Time of the content; ISO 8601."""
    content_hash: Annotated[str, Stored("keyword", "Version of the document", internal=True)] = ""

    @property
    def text_language(self) -> str | None:
        """Code of the language that its source states, or else of the detected one; None if unknown."""
        return base_language(self.language) if self.language else self.detected_language


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage(PassageContent):
    """One retrievable unit. `FIELDS` is made of the annotations and matches `component_templates/braid-fields.json`.

    `content_hash` is the version of the passage's document (`ingest.protocol`); it and `id` are assigned when the
    passage is written.
    """

    token_count: Annotated[int, Stored("integer", "Tokens of the text", per_passage=True)]
    tenant: Annotated[str, Stored("keyword", "Tenant")]
    acl: Annotated[tuple[str, ...], Stored("keyword", "Readers", writable=True)]
    acl_1: Annotated[tuple[str, ...], Stored("keyword", "Restriction 1", writable=True)] = ()
    acl_2: Annotated[tuple[str, ...], Stored("keyword", "Restriction 2", writable=True)] = ()
    acl_3: Annotated[tuple[str, ...], Stored("keyword", "Restriction 3", writable=True)] = ()
    acl_4: Annotated[tuple[str, ...], Stored("keyword", "Restriction 4", writable=True)] = ()
    embedding_model: Annotated[str, Stored("keyword", "Model of the vector")]
    embedding: Annotated[Sequence[float] | None, Stored("knn_vector", "Vector", per_passage=True, in_source=False)] = (
        field(default=None, repr=False)
    )
    token_vectors: Annotated[bytes | None, Stored("binary", "Vectors of tokens", per_passage=True, in_source=False)] = (
        field(default=None, repr=False)
    )
    """Packed by `embedding.token_vectors`."""

    def embedding_text(self) -> str:
        """Return the text to embed."""
        return embedding_text(self.title, self.section_heading, self.text)


_RULED = {"document_id", "title", "text", "source_id", "uri", "timestamp", "topic_tags", *ACCESS_FIELDS}
FIELDS = stored_fields(Passage)
"""Field name -> storage: the table for the store, the models of requests and answers, and docs/fields.md."""
EXTRA_FIELDS = {name: stored for name, stored in FIELDS.items() if stored.writable and name not in _RULED}
"""Fields copied from a document's write request to its passages unchanged (`Document.extra`)."""


def embedding_text(title: str, section_heading: str, text: str) -> str:
    """Return the text of a passage to embed: title, heading and text, as in the lexical leg's combined field."""
    return " ".join(part for part in dict.fromkeys((title, section_heading, text)) if part)


def passage_id(tenant: str, document_id: str, version: str, position: int) -> str:
    """Return the id of a passage (32 hex digits); different versions of a document have different ids.

    The first half identifies the passage within its document, so that passages of equal scores keep their order when
    they are rewritten; the second half depends on the version. Versions of an older Braid (without ``~``) have ids in
    one piece.
    """
    if "~" not in version:
        return _digest(tenant, document_id, version, str(position))[:32]
    return _digest(tenant, document_id, str(position))[:16] + _digest(version, str(position))[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


class Candidate(NamedTuple):
    """A passage as ranked by one leg of a search: just what fusion needs. A tuple, because a search makes hundreds."""

    id: str
    document_id: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(PassageContent):
    """A passage as found by a search. `score` orders the results; the others are the stages' scores, if known."""

    score: float
    lexical: float | None = None
    dense: float | None = None
    fused: float | None = None
    rerank: float | None = None
