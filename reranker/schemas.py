"""Bodies of requests, in the forms that callers of Cohere, Jina and text-embeddings-inference send."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Strict = ConfigDict(strict=True, extra="allow")
Query = Annotated[str, StringConstraints(min_length=1)]


class Document(BaseModel):
    """A document as an object; other fields than its text are not read."""

    model_config = ConfigDict(strict=True, extra="ignore")

    text: str


class _Request(BaseModel):
    model_config = Strict

    query: Query
    timeout_ms: Annotated[int, Field(ge=1)] | None = None
    """Ours: how long the caller waits."""

    @field_validator("query")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the query is blank: send some words")
        return value

    @property
    def unused(self) -> list[str]:
        """Names of fields that were sent and are not read here."""
        return sorted(self.model_extra or {})


class RerankRequest(_Request):
    """``POST /v1/rerank`` of Cohere and Jina."""

    model: str | None = None
    documents: Annotated[list[str | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None


class TeiRequest(_Request):
    """``POST /rerank`` of text-embeddings-inference."""

    texts: Annotated[list[str], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    """False: an error where something had to be cut. Not given: it is cut."""
    truncation_direction: str = "Right"

    @field_validator("truncation_direction")
    @classmethod
    def _only_right(cls, value: str) -> str:
        if value.lower() != "right":
            raise ValueError("only 'Right' is known here: the end of a text is cut")
        return value
