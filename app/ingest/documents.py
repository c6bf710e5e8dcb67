"""A document -> its passages: chunk, tag, identify. Pure: the same document and recipe give the same passages."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.access import PUBLIC
from app.config import Settings
from app.embedding.token_vectors import TokenVectors, token_vectors_for
from app.errors import DocumentRejected
from app.ingest.chunk import MAXIMUM, Draft, chunk
from app.ingest.enrich import keyphrases, normalise_tags
from app.ingest.sources import Defaults, SourceFile
from app.passage import Document, ParsedDocument, Passage

_SPECIAL_TOKENS = 2
"""What a BERT-like model puts around a text."""


class Encoder(Protocol):
    """What ingesting needs of the embedding model (`app.embedding.encoder.Encoder`)."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def gives_tokens(self) -> bool: ...

    def encode_passages(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]: ...

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], bytes], /
    ) -> tuple[npt.NDArray[np.float32], list[bytes]]: ...

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]: ...


def recipe(settings: Settings, encoder: Encoder, *, tagging: bool = True) -> str:
    """Everything beside the document that decides what its passages are; part of `Document.content_hash`.

    Args:
        settings: of cutting and embedding.
        encoder: its name tells two models, or two precisions of one, apart.
        tagging: whether documents without tags get keyphrases.
    """
    codec = token_codec(settings, encoder)
    tokens = f" vectors={codec.id.hex()}" if codec is not None else ""
    prefix = settings.embedding_passage_prefix or ""
    return (
        f"model={encoder.name} window={settings.embedding_max_tokens} prefix={prefix!r} "
        f"tokens={settings.passage_tokens} overlap={settings.passage_overlap} keyphrases={tagging}{tokens}"
    )


def version_of(document: Document, made_by: str) -> str:
    """The content hash of the document; `made_by` is the `recipe`."""
    return document.content_hash(f"{made_by} document={document.document_id}")


def file_document(file: SourceFile, parsed: ParsedDocument, defaults: Defaults) -> Document:
    """The document of a parsed file. Its timestamp is the file's own word (front matter, metadata), or none."""
    return Document(
        document_id=file.document_id,
        source_id=file.source_id,
        uri=file.uri,
        parsed=parsed,
        tags=normalise_tags((*defaults.tags, *parsed.tags, *file.folders)),
        tenant=defaults.tenant,
        acl=(PUBLIC,) if defaults.acl is None else defaults.acl,
        keeps_acl=defaults.acl is None,
        timestamp=parsed.timestamp,
    )


def to_passages(
    document: Document,
    *,
    settings: Settings,
    encoder: Encoder,
    written: datetime,
    tagging: bool = True,
) -> list[Passage]:
    """Passages without vectors, positions 0, 1, 2, ...; their ids and version are given when they are written.

    Args:
        document: what to cut.
        settings: target size and overlap.
        encoder: its tokenizer counts.
        written: the time for a document that names none: when its file was last written, or now. It is no part of the
            hash: to touch a file, or to check it out anew, does not change the document.
        tagging: give keyphrases to a document without tags.

    Raises:
        DocumentRejected: ``empty`` where there is no text.
    """
    drafts = _whole(document, encoder) if document.whole else _chunk(document, settings, encoder)
    if not drafts:
        raise DocumentRejected("there is no text in it", reason="empty")
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
            section_heading=draft.section_heading,
            text=draft.text,
            page=draft.page,
            position=draft.position,
            token_count=draft.token_count,
            timestamp=timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp,
            topic_tags=tags,
            tenant=document.tenant,
            acl=document.acl,
            content_hash="",
            embedding_model=encoder.name,
        )
        for draft in drafts
    ]


def embed(passages: Sequence[Passage], encoder: Encoder, codec: TokenVectors | None) -> list[Passage]:
    """The passages with their vectors, and with those of their tokens where there is a `codec`. Raises EncoderError."""
    texts = [passage.embedding_text() for passage in passages]
    tokens: Sequence[bytes | None] = [None] * len(texts)
    if codec is None:
        vectors = encoder.encode_passages(texts)
    else:
        vectors, tokens = encoder.encode_passages_with_tokens(texts, codec.pack)
    # as float32, not as Python's numbers: all passages of a document are held until it is written
    return [
        replace(passage, embedding=array("f", vector.tobytes()), token_vectors=packed)
        for passage, vector, packed in zip(passages, vectors.astype(np.float32), tokens, strict=True)
    ]


def token_codec(settings: Settings, encoder: Encoder) -> TokenVectors | None:
    """What packs the vectors of tokens; None where they are switched off, or the model has none."""
    if not settings.token_vectors or not encoder.gives_tokens:
        return None
    return token_vectors_for(encoder.name, encoder.dimension)


def _chunk(document: Document, settings: Settings, encoder: Encoder) -> list[Draft]:
    prefix = settings.embedding_passage_prefix
    taken = _SPECIAL_TOKENS + (len(encoder.token_offsets(prefix)) if prefix else 0)
    return chunk(
        document.parsed,
        encoder.token_offsets,
        target=settings.passage_tokens,
        overlap=settings.passage_overlap,
        room=min(MAXIMUM, settings.embedding_max_tokens - taken),
    )


def _whole(document: Document, encoder: Encoder) -> list[Draft]:
    blocks = [block for block in document.parsed.blocks if block.text.strip()]
    if not blocks:
        return []
    text = "\n\n".join(block.text.strip() for block in blocks)
    return [Draft("", blocks[0].page, 0, text, len(encoder.token_offsets(text)))]
