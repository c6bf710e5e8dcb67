"""Request bodies, in the forms of Cohere, Jina and text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Strict = ConfigDict(strict=True, extra="allow")
Query = Annotated[str, StringConstraints(min_length=1)]


class Document(BaseModel):
    """A document as an object; fields other than `text` are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    text: str


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
    """Body of Cohere's and Jina's ``POST /v1/rerank``."""

    model: str | None = None
    documents: Annotated[list[str | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None


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
