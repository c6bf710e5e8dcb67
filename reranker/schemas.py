"""Request bodies, in the forms of Cohere, Jina and text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from reranker.documents import Document

Strict = ConfigDict(strict=True, extra="allow")
Query = Annotated[str, StringConstraints(min_length=1)]


class _Request(BaseModel):
    model_config = Strict

    query: Query
    timeout_ms: Annotated[int, Field(ge=1)] | None = None
    """Our extension: milliseconds that the caller waits."""

    @field_validator("query")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the query is blank: send a query with words")
        return value

    @property
    def unused(self) -> list[str]:
        """Names of fields in the request that are ignored."""
        return sorted(self.model_extra or {})


class RerankRequest(_Request):
    """Body of Cohere's ``POST /v1/rerank`` and ``/v2/rerank``, and of Jina's."""

    model: str | None = None
    documents: Annotated[list[Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    max_chunks_per_doc: Annotated[int, Field(ge=1)] | None = None
    """An upper limit: the beginning of a document is scored, as one chunk."""
    priority: Annotated[int, Field(ge=0)] | None = None
    """Taken and not used: requests are answered in order of arrival."""


class TeiRequest(_Request):
    """Body of text-embeddings-inference's ``POST /rerank``."""

    texts: Annotated[list[str], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    """False: raise an error if a text had to be cut. None: cut it."""
    truncation_direction: str = "Right"

    @field_validator("truncation_direction")
    @classmethod
    def _only_right(cls, value: str) -> str:
        if value.lower() != "right":
            raise ValueError("only 'Right' is supported: the end of a text is cut")
        return value
