"""Validated search requests. Unknown fields are rejected, because a misspelt filter must not widen a search."""

from __future__ import annotations

from types import GenericAlias
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from app.conversation import Conversation, Messages, refusal
from app.fields import Stored, with_fields
from app.passage import FIELDS
from app.store.filters import PassageFilter
from app.tuning import Normalization
from app.values import Integer, IsoDate, nfc, not_blank

MAX_QUERY_CHARACTERS = 4096
MAX_FILTER_VALUES = 100

Query = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_QUERY_CHARACTERS, strict=True),
    AfterValidator(not_blank),
    AfterValidator(nfc),
]


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
            raise ValueError("send gte or gt, not both")
        if self.lte is not None and self.lt is not None:
            raise ValueError("send lte or lt, not both")
        if not self.model_dump(exclude_none=True):
            raise ValueError("send at least one of gte, gt, lte, lt")
        return self


def _filter(stored: Stored) -> Any:
    """Return the type and default of the filter by one field."""
    if stored.filter == "range":
        return TimestampRange | None, None
    values = GenericAlias(list, stored.value_type)
    return Annotated[values, Field(min_length=1, max_length=MAX_FILTER_VALUES)] | None, None


_FILTERS = {name: _filter(stored) for name, stored in FIELDS.items() if stored.filter}


@with_fields(_FILTERS)
class ExclusionRequest(_Strict):
    """Passages to leave out: those with any of the named values of any field, or in the range."""

    @model_validator(mode="after")
    def _names_a_field(self) -> ExclusionRequest:
        if not _stored_values(self):
            raise ValueError(f"names nothing to leave out: name values of {', '.join(_FILTERS)}, or omit it")
        return self


@with_fields(_FILTERS)
class FilterRequest(_Strict):
    """Lists mean any-of; several fields must all match, and nothing of `not`."""

    not_: Annotated[ExclusionRequest | None, Field(alias="not")] = None

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> FilterRequest:
        excluded = _stored_values(self.not_)
        for name, values in _stored_values(self).items():
            if both := [value for value in values if value in excluded.get(name, ())]:
                told = both[0] if FIELDS[name].filter == "any of" else dict(values)
                raise ValueError(f"{name} and not.{name} both name {told!r}: remove it from one of them")
        return self

    def passage_filter(self) -> PassageFilter:
        """Return the store's form of the filter."""
        return PassageFilter(_stored_values(self.not_), **_stored_values(self))


def _stored_values(request: BaseModel | None) -> dict[str, tuple[Any, ...]]:
    """Return field -> values, or bounds of a range; tags are folded as in the ingest pipeline."""
    found = request.model_dump(include=set(_FILTERS), exclude_none=True) if request is not None else {}
    if "topic_tags" in found:
        found["topic_tags"] = [tag.strip().lower() for tag in found["topic_tags"]]
    return {name: tuple(value.items() if isinstance(value, dict) else value) for name, value in found.items()}


class FusionRequest(_Strict):
    """Fusion of the legs.

    `alpha` is the dense share of linear fusion (0 = lexical only, 1 = dense only). Without it each query gets the
    weight predicted by the learned model, or with `learned` false the tuned fixed one.
    """

    method: Literal["linear", "rrf"] = "linear"
    alpha: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    learned: bool | None = None
    normalization: Normalization | None = None

    @model_validator(mode="after")
    def _fits_the_method(self) -> FusionRequest:
        if self.method == "rrf":
            if self.alpha is not None:
                raise ValueError("alpha weighs linear fusion; rrf has no weights before OpenSearch 3.1: omit alpha")
            if self.learned or self.normalization is not None:
                raise ValueError("rrf fuses ranks: omit learned and normalization, or use method linear")
        if self.learned and self.alpha is not None:
            raise ValueError("send alpha, or learned true, not both")
        return self


class RerankRequest(_Strict):
    """Reranking of the candidates; omitted values come from the service's settings.

    `depth`: number of candidates, best fused first. `weight`: the reranker's share in the final score. `threshold`: a
    probability of relevance; once enough passages for the page reach it, the rest are not reranked.
    """

    depth: Annotated[Integer, Field(ge=1, le=1000)] | None = None
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None


class MmrRequest(_Strict):
    """Maximal marginal relevance: `lambda` 1 is relevance only, 0 is only difference from the hits above."""

    lambda_: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, alias="lambda")] = 0.7


class SearchRequest(_Strict):
    """The body of ``POST /v1/search``."""

    query: Query
    mode: Literal["hybrid", "lexical", "dense"] = "hybrid"
    size: Annotated[Integer, Field(ge=1, le=1000)] = 10
    from_: Annotated[Integer, Field(ge=0, le=1000, alias="from")] = 0
    candidates: Annotated[Integer, Field(ge=10, le=1000)] | None = None
    """Passages of each leg for the fusion; pages can't reach beyond them. Default: the tuned number (100)."""
    fusion: FusionRequest = FusionRequest()
    filter: FilterRequest = FilterRequest()
    rerank: bool | RerankRequest | None = None
    """Default: a hybrid search is reranked if the service has a reranker; a search by one leg is not."""
    max_per_document: Annotated[Integer, Field(ge=1, le=100)] | None = None
    """Maximum passages of one document; others take the freed places."""
    fold_duplicates: bool = False
    """Near-duplicate passages are folded into the best of them, which names the others."""
    mmr: bool | MmrRequest = False
    highlight: bool = False
    """Fragments of title, heading and text with the matched words in ``<mark>``, HTML-escaped."""
    exact_total: bool = False
    """Count all matches, which costs time; else `total` is a lower bound where there are many."""
    explain: bool = False
    timeout_ms: Annotated[Integer, Field(ge=1, le=600_000)] | None = None
    cache: bool = True

    @property
    def reranking(self) -> RerankRequest:
        """The request's reranking options; defaults if it has none."""
        return self.rerank if isinstance(self.rerank, RerankRequest) else RerankRequest()

    @property
    def mmr_lambda(self) -> float | None:
        """The lambda of maximal marginal relevance; None if it is not requested."""
        if isinstance(self.mmr, MmrRequest):
            return self.mmr.lambda_
        return MmrRequest().lambda_ if self.mmr else None


def _needs_no_query(schema: dict[str, Any]) -> None:
    schema["required"].remove("query")


class AnswerRequest(SearchRequest):
    """The body of ``POST /v1/answer``: a search, and options of the answer; `messages` may take the query's place."""

    model_config = ConfigDict(json_schema_extra=_needs_no_query)

    messages: Messages | None = None
    """A conversation as OpenAI's clients send it. The last message of role `user` is the query; what users asked before
    may complete it."""

    max_per_document: Annotated[Integer, Field(ge=1, le=100)] | None = 3
    fold_duplicates: bool = True
    stream: bool = False
    context_size: Annotated[Integer, Field(ge=1, le=50)] | None = None
    """Number of passages for the answer, best first. Default: the service's setting (5)."""

    @model_validator(mode="before")
    @classmethod
    def _asks_once(cls, body: Any) -> Any:
        if not isinstance(body, dict) or body.get("messages") is None:
            return body
        if "query" in body:
            raise refusal(("messages",), "send query or messages, not both", body["query"])
        conversation = Conversation.model_validate({"messages": body["messages"]})
        return {**body, "query": conversation.question}
