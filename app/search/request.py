"""What a caller may ask of search, validated. Unknown fields are refused: a misspelt filter must not widen a search."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

from app.passage import LANGUAGE_PATTERN, not_blank
from app.store.filters import PassageFilter
from app.tuning import Normalization

MAX_QUERY_CHARACTERS = 4096
MAX_FILTER_VALUES = 100

_DATE = TypeAdapter(datetime)


def _integral(value: object) -> object:
    """JSON has one kind of number: 10.0 is the integer 10 (JSON Schema says so too)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_integral)]


def parse_iso_date(value: str) -> str:
    """Only ISO 8601; the text itself goes to OpenSearch, which takes a bare date in `lte` as the end of that day."""
    if value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError(f"{value!r} is a number, not an ISO 8601 date such as 2024-05-31 or 2024-05-31T12:00:00Z")
    parsed = _DATE.validate_python(value)
    if not 1 <= parsed.year <= 9999:  # pragma: no cover  # datetime can't hold others
        raise ValueError("the year must lie between 1 and 9999")
    return value if "T" not in value.upper() and " " not in value else parsed.isoformat()


Query = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_QUERY_CHARACTERS, strict=True), AfterValidator(not_blank)
]
Value = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(not_blank)]
_Values = Annotated[list[Value], Field(min_length=1, max_length=MAX_FILTER_VALUES)]
Language = Annotated[
    str, StringConstraints(min_length=2, max_length=40, pattern=LANGUAGE_PATTERN), AfterValidator(str.lower)
]
"""A tag of BCP 47 such as ``de`` or ``zh-Hant``, in any case."""
Page = Annotated[Integer, Field(ge=1, le=1_000_000)]
IsoDate = Annotated[str, StringConstraints(min_length=8, max_length=40), AfterValidator(parse_iso_date)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TimestampRange(_Strict):
    """Bounds of the content's time, ISO 8601; a bare date in `lte` means the end of that day."""

    gte: IsoDate | None = None
    gt: IsoDate | None = None
    lte: IsoDate | None = None
    lt: IsoDate | None = None

    @model_validator(mode="after")
    def _one_bound_a_side(self) -> TimestampRange:
        if self.gte is not None and self.gt is not None:
            raise ValueError("give gte or gt, not both")
        if self.lte is not None and self.lt is not None:
            raise ValueError("give lte or lt, not both")
        if not self.model_dump(exclude_none=True):
            raise ValueError("give at least one of gte, gt, lte, lt")
        return self


class FilterRequest(_Strict):
    """Lists mean any-of; several fields must all match."""

    source_id: _Values | None = None
    source_type: (
        Annotated[
            list[Literal["pdf", "pptx", "docx", "html", "markdown", "text", "json"]],
            Field(min_length=1, max_length=MAX_FILTER_VALUES),
        ]
        | None
    ) = None
    document_id: _Values | None = None
    topic_tags: _Values | None = None
    language: Annotated[list[Language], Field(min_length=1, max_length=MAX_FILTER_VALUES)] | None = None
    """As the source names it; passages whose language is not known are left out."""
    pages: Annotated[list[Page], Field(min_length=1, max_length=MAX_FILTER_VALUES)] | None = None
    """Passages that stand on one of them, wholly or in part."""
    timestamp: TimestampRange | None = None

    def passage_filter(self) -> PassageFilter:
        """The store's form of it; tags are folded as the ingest pipeline folds them."""
        bounds = self.timestamp.model_dump(exclude_none=True) if self.timestamp else {}
        return PassageFilter(
            source_id=tuple(self.source_id or ()),
            source_type=tuple(self.source_type or ()),
            document_id=tuple(self.document_id or ()),
            topic_tags=tuple(tag.strip().lower() for tag in self.topic_tags or ()),
            language=tuple(self.language or ()),
            pages=tuple(self.pages or ()),
            timestamp=tuple(bounds.items()),
        )


class FusionRequest(_Strict):
    """How the legs are fused.

    `alpha` is the dense share of linear fusion (0 = lexical only, 1 = dense only); without it each query gets the
    weight that the learned model predicts, or with `learned` false the tuned fixed one.
    """

    method: Literal["linear", "rrf"] = "linear"
    alpha: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    learned: bool | None = None
    normalization: Normalization | None = None

    @model_validator(mode="after")
    def _fits_the_method(self) -> FusionRequest:
        if self.method == "rrf":
            if self.alpha is not None:
                raise ValueError(
                    "alpha weighs linear fusion; rrf has no weights before OpenSearch 3.1: leave alpha out"
                )
            if self.learned or self.normalization is not None:
                raise ValueError("rrf fuses ranks: leave learned and normalization out, or use method linear")
        if self.learned and self.alpha is not None:
            raise ValueError("give alpha, or learned true, not both")
        return self


class RerankRequest(_Strict):
    """How the candidates are reranked; what is left out is the service's setting.

    `depth`: so many of the best fused. `weight`: the reranker's share in the final score. `threshold`: a probability
    of relevance; when as many passages reach it as the page shows, the rest are not reranked.
    """

    depth: Annotated[Integer, Field(ge=1, le=1000)] | None = None
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None


class MmrRequest(_Strict):
    """Maximal marginal relevance: `lambda` 1 is relevance alone, 0 is difference from what stands above alone."""

    lambda_: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, alias="lambda")] = 0.7


class SearchRequest(_Strict):
    """The body of ``POST /v1/search``."""

    query: Query
    mode: Literal["hybrid", "lexical", "dense"] = "hybrid"
    size: Annotated[Integer, Field(ge=1, le=1000)] = 10
    from_: Annotated[Integer, Field(ge=0, le=1000, alias="from")] = 0
    candidates: Annotated[Integer, Field(ge=10, le=1000)] | None = None
    """Passages that each leg gives to the fusion; pages can't reach past it. Default: the tuned number (100)."""
    fusion: FusionRequest = FusionRequest()
    filter: FilterRequest = FilterRequest()
    rerank: bool | RerankRequest | None = None
    """Default: a hybrid search is reranked where the service has a reranker, a search by one leg is not."""
    max_per_document: Annotated[Integer, Field(ge=1, le=100)] | None = None
    """At most so many passages of one document; those left out give their places to others."""
    fold_duplicates: bool = False
    """Passages that say nearly the same are folded into the best of them, which names the others."""
    mmr: bool | MmrRequest = False
    highlight: bool = False
    """Fragments of title, heading and text with the matched words in ``<mark>``, HTML-escaped."""
    explain: bool = False
    timeout_ms: Annotated[Integer, Field(ge=1, le=600_000)] | None = None
    cache: bool = True

    @property
    def reranking(self) -> RerankRequest:
        """What the request says of reranking, if anything."""
        return self.rerank if isinstance(self.rerank, RerankRequest) else RerankRequest()

    @property
    def mmr_lambda(self) -> float | None:
        """The lambda of maximal marginal relevance; None: not wanted."""
        if isinstance(self.mmr, MmrRequest):
            return self.mmr.lambda_
        return MmrRequest().lambda_ if self.mmr else None


class AnswerRequest(SearchRequest):
    """The body of ``POST /v1/answer``: a search, and what to make of it."""

    max_per_document: Annotated[Integer, Field(ge=1, le=100)] | None = 3
    fold_duplicates: bool = True
    stream: bool = False
    context_size: Annotated[Integer, Field(ge=1, le=50)] | None = None
    """Passages that the answer is made from, best first. Default: the service's setting (5)."""
