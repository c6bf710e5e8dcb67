"""Conversion of a document to passages: chunk, tag, identify. Pure: equal documents and recipes give equal passages."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.access import PUBLIC, Access
from app.calibration import calibration_for
from app.config import Settings
from app.embedding.token_vectors import TokenVectors, token_vectors_for
from app.errors import DocumentRejected
from app.ingest.passages.chunk import MAXIMUM, Draft, chunk
from app.ingest.passages.enrich import keyphrases, normalise_tags
from app.ingest.sources.files import Defaults, SourceFile
from app.languages import Guess, base_language, detect
from app.passage import Document, ParsedDocument, Passage

_LANGUAGE_SAMPLE = 2_000
"""Characters at the beginning of a document from which its language is detected."""
_SPECIAL_TOKENS = 2
"""Number of special tokens that a BERT-like model adds to a text."""


class Encoder(Protocol):
    """The part of the embedding model (`app.embedding.encoder.Encoder`) that ingest needs."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def gives_tokens(self) -> bool: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def passage_prefix(self) -> str: ...

    def encode_passages(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]: ...

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], bytes], /
    ) -> tuple[npt.NDArray[np.float32], list[bytes]]: ...

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]: ...


def recipe(settings: Settings, encoder: Encoder, *, tagging: bool = True) -> str:
    """Return everything besides the document that determines its passages; part of `Document.content_hash`.

    Args:
        encoder: its name distinguishes models and precisions.
        tagging: whether documents without tags get keyphrases.
    """
    codec = token_codec(settings, encoder)
    tokens = f" vectors={codec.id.hex()}" if codec is not None else ""
    return (
        f"model={encoder.name} window={encoder.max_tokens} prefix={encoder.passage_prefix!r} "
        f"tokens={settings.passage.tokens} overlap={settings.passage.overlap} keyphrases={tagging}{tokens}"
    )


def version_of(document: Document, made_by: str) -> str:
    """Return the content hash of the document; `made_by` is the `recipe`."""
    language = language_of(document).language
    # English documents keep the hash that they are stored with
    cut_as = f" sentences={language}" if language not in (None, "en") else ""
    return document.content_hash(f"{made_by} document={document.document_id}{cut_as}")


def language_of(document: Document) -> Guess:
    """Return the language that the document's source states, or else the detected one."""
    if stated := document.extra.get("language"):
        return Guess(base_language(stated), 1.0)
    return detect(_beginning(document.parsed))


def file_document(file: SourceFile, parsed: ParsedDocument, defaults: Defaults) -> Document:
    """Return the document of a parsed file. Its timestamp comes from the file's content (front matter, metadata), or is
    None.
    """
    return Document(
        document_id=file.document_id,
        source_id=file.source_id,
        uri=file.uri,
        parsed=parsed,
        tags=normalise_tags((*defaults.tags, *parsed.tags, *file.folders)),
        tenant=defaults.tenant,
        acl=(PUBLIC,) if defaults.acl is None else defaults.acl,
        keeps_acl=defaults.acl is None,
        restrictions=defaults.restrictions,
        timestamp=parsed.timestamp,
        extra=defaults.extra,
    )


def to_passages(
    document: Document,
    *,
    settings: Settings,
    encoder: Encoder,
    written: datetime,
    tagging: bool = True,
) -> list[Passage]:
    """Return passages without vectors at positions 0, 1, 2, ...; writing assigns ids and version.

    Args:
        encoder: its tokenizer counts tokens.
        written: the time of a document that names none: its file's modification time, or now. It is not part of the
            hash, so that touching or checking out a file does not change the document.
        tagging: add keyphrases to a document without tags.

    Raises:
        DocumentRejected: ``empty`` if there is no text.
    """
    language = language_of(document)
    drafts = (
        _whole_text(document, encoder) if document.whole else _chunk(document, settings, encoder, language.language)
    )
    if not drafts:
        raise DocumentRejected("the document contains no text", reason="empty")
    access = asdict(Access().changed(document.access))
    tags = normalise_tags(document.tags) or (keyphrases(document.parsed) if tagging else ())
    timestamp = document.timestamp or document.parsed.timestamp or written
    return [
        Passage(
            id="",
            document_id=document.document_id,
            source_id=document.source_id,
            source_type=document.parsed.source_type,
            uri=document.uri,
            title=document.parsed.title,
            timestamp=(timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp).isoformat(),
            topic_tags=tags,
            tenant=document.tenant,
            content_hash="",
            embedding_model=encoder.name,
            **asdict(draft),
            **_detected(draft, language if "language" not in document.extra else None),
            **access,
            **document.extra,
        )
        for draft in drafts
    ]


def embed(passages: Sequence[Passage], encoder: Encoder, codec: TokenVectors | None) -> list[Passage]:
    """Return the passages with vectors, and with token vectors if there is a `codec`. Raises EncoderError."""
    texts = [passage.embedding_text() for passage in passages]
    tokens: Sequence[bytes | None] = [None] * len(texts)
    if codec is None:
        vectors = encoder.encode_passages(texts)
    else:
        vectors, tokens = encoder.encode_passages_with_tokens(texts, codec.pack)
    # float32 instead of Python numbers: all passages of a document are held until it is written
    return [
        replace(passage, embedding=array("f", vector.tobytes()), token_vectors=packed)
        for passage, vector, packed in zip(passages, vectors.astype(np.float32), tokens, strict=True)
    ]


def token_codec(settings: Settings, encoder: Encoder) -> TokenVectors | None:
    """Return the codec of token vectors; None if they are disabled or the model has none."""
    if not settings.index.token_vectors or not encoder.gives_tokens:
        return None
    return token_vectors_for(calibration_for(settings.embedding, encoder.name), encoder.dimension)


def _detected(draft: Draft, of_document: Guess | None) -> dict[str, Any]:
    """Return the fields of the detected language. What is too short to tell is taken to be in its document's."""
    found = detect(draft.text, of_document)
    return {"detected_language": found.language, "language_confidence": found.confidence}


def _beginning(parsed: ParsedDocument) -> str:
    """Return the first texts of a document, enough to detect its language."""
    parts: list[str] = []
    length = 0
    for block in parsed.blocks:
        if length >= _LANGUAGE_SAMPLE:
            break
        parts.append(block.text[:_LANGUAGE_SAMPLE])
        length += len(parts[-1])
    return " ".join(parts) or parsed.title


def _chunk(document: Document, settings: Settings, encoder: Encoder, language: str | None) -> list[Draft]:
    prefix = encoder.passage_prefix
    taken = _SPECIAL_TOKENS + (len(encoder.token_offsets(prefix)) if prefix else 0)
    return chunk(
        document.parsed,
        encoder.token_offsets,
        target=settings.passage.tokens,
        overlap=settings.passage.overlap,
        room=min(MAXIMUM, encoder.max_tokens - taken),
        language=language,
    )


def _whole_text(document: Document, encoder: Encoder) -> list[Draft]:
    blocks = [block for block in document.parsed.blocks if block.text.strip()]
    if not blocks:
        return []
    text = "\n\n".join(block.text.strip() for block in blocks)
    pages = {block.page for block in blocks if block.page is not None}
    return [Draft("", blocks[0].page, 0, text, len(encoder.token_offsets(text)), tuple(sorted(pages)))]
