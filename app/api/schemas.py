"""Models of responses, and of requests that no other module owns; OpenAPI is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from app.access import ACCESS_FIELDS, RESTRICTIONS, AccessChange
from app.feedback.ids import PATTERN as QUERY_ID
from app.fields import with_fields
from app.passage import EXTRA_FIELDS, FIELDS
from app.search.request import Query
from app.store.query_log import Label
from app.values import (
    LONGEST_READER,
    MOST_READERS,
    Identifier,
    Integer,
    IsoDate,
    Value,
    reader,
)

MAX_RERANKED_DOCUMENTS = 1000
MAX_DOCUMENT_CHARACTERS = 4 * 1024 * 1024
Acl = Annotated[
    list[Annotated[str, AfterValidator(reader), Field(min_length=1, max_length=LONGEST_READER)]],
    Field(max_length=MOST_READERS),
]
"""Readers: groups, ``user:SUB``, ``public``, unchanged; empty: the operator and admins."""
Restriction = Annotated[Acl, Field(min_length=1)]
"""Names of which a reader must also have one."""
Tags = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=20)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Scores(_Answer):
    """Scores of a passage by stage; null if the stage did not run or its score is unknown.

    `lexical` and `fused` depend on all passages of a shard: only admins and the operator see them.
    """

    lexical: float | None = None
    dense: float | None = None
    fused: float | None = None
    rerank: float | None = None
    reranker: str | None = None
    """The reranker of `rerank`."""


@with_fields({"id": (str, ...)} | {name: stored.answered for name, stored in FIELDS.items() if stored.returned})
class ResultItem(_Answer):
    score: float
    """Score that orders the results; 1 / place if it depends on word statistics and the caller is not an admin."""
    scores: Scores
    duplicates: list[str] = []
    """Ids of near-duplicate passages that were folded into this one."""
    highlights: dict[str, list[str]] | None = None
    """Field -> fragments with ``<mark>``, all else HTML-escaped; null without highlighting or matches."""


class DegradedItem(_Answer):
    stage: str
    reason: str


class SearchResponse(_Answer):
    query_id: str
    results: list[ResultItem]
    total: int
    total_relation: Literal["eq", "gte"] = "eq"
    """``gte``: at least `total` passages match; they are counted with ``exact_total``."""
    timings: dict[str, float]
    degraded: list[DegradedItem]
    cache: Literal["miss", "exact", "near", "off"]
    """Source of the answer; ``near``: it was computed for a query that asks the same in other words."""
    cache_stale_ms: float | None = None
    """Age of the answer, if passages were added or replaced since it was computed (BRAID_CACHE_STALENESS_MS)."""
    index_generation: int | None
    """Increases with every write to the tenant's passages; null without Redis."""
    variants: dict[str, str] = {}
    """The feature flags of this request: flag -> variant."""
    explanation: dict[str, Any] | None = None


class CitationItem(_Answer):
    """Citation; `marker` is the position of the passage in `results`, from 1.

    `quote` is verbatim from the passage `id`: that result, or a neighbour in its document that was read with it.
    """

    marker: int
    id: str
    document_id: str
    page: int | None
    quote: str


class AnswerResponse(SearchResponse):
    answer: str | None
    citations: list[CitationItem]
    abstained: bool
    model: str
    usage: dict[str, int] | None
    query_used: str | None = None
    """The question that was searched and answered, if it was completed from earlier ones in `messages`."""
    query_completed_by: Literal["model", "rule"] | None = None


_WRITTEN = {
    "acl": (Acl | None, None),
    **dict.fromkeys(RESTRICTIONS, (Restriction | None, None)),
    **{name: stored.written for name, stored in EXTRA_FIELDS.items()},
}
"""Optional fields of any document. Without `acl` it keeps its readers, and a new one is public (``public``); a reader
must also have one of the names of each restriction, and without restrictions a document keeps its own, if any."""


@with_fields(_WRITTEN)
class DocumentRequest(BaseModel):
    """A ready document for ``POST /v1/documents``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    document_id: Identifier
    title: Annotated[str, Field(max_length=1000)] = ""
    text: Annotated[str, Field(min_length=1)]
    source_id: Identifier = "api"
    uri: Annotated[str, Field(max_length=2048)] = ""
    timestamp: IsoDate | None = None
    topic_tags: Tags = []


@with_fields(_WRITTEN)
class UploadFields(BaseModel):
    """Fields that may accompany a file. Not strict, because all values in a form are text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    document_id: Identifier
    source_id: Identifier = "upload"
    topic_tags: Tags = []


class DocumentResponse(_Answer):
    document_id: str
    passages: int
    status: Literal["created", "updated", "unchanged"]
    warnings: list[str] = []


class JobProblem(_Answer):
    """Problem document of a job that failed or was lost: the one that the caller would have received."""

    type: str
    title: str
    status: int
    detail: str


class JobResponse(_Answer):
    """State of a document that is stored in the background.

    `progress` counts embedded passages. `lost`: the process with the job has ended; the request may be sent again.
    `heartbeat_at` is the last sign of life of the process.
    """

    id: str
    kind: Literal["ingest"]
    state: Literal["queued", "running", "done", "failed", "lost"]
    document_id: str
    progress: int
    created_at: str
    started_at: str | None
    heartbeat_at: str
    ended_at: str | None
    result: DocumentResponse | None
    error: JobProblem | None


@with_fields(dict.fromkeys(ACCESS_FIELDS, (Acl | None, None)))
class ReadersRequest(BaseModel):
    """New lists of readers for an existing document: at least one; lists that are not named stay unchanged.

    With an empty `acl` only the operator and admins can read the document; an empty restriction is removed.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @property
    def change(self) -> AccessChange:
        """Return the named lists."""
        named = {name: getattr(self, name) for name in ACCESS_FIELDS}
        return {name: tuple(dict.fromkeys(entries)) for name, entries in named.items() if entries is not None}


@with_fields({"acl": (list[str], ...)} | dict.fromkeys(RESTRICTIONS, (list[str] | None, None)))
class _Readers(_Answer):
    """The current lists; a missing restriction is omitted."""


class ReadersResponse(_Readers):
    document_id: str
    passages: int
    status: Literal["updated", "unchanged"]


@with_fields(
    {"id": (str, ...), "position": (int, ...)}
    | {name: stored.answered for name, stored in FIELDS.items() if stored.returned and stored.per_passage}
)
class PassageItem(_Answer):
    token_count: int


@with_fields({name: stored.answered for name, stored in FIELDS.items() if stored.returned and not stored.per_passage})
class StoredDocument(_Readers):
    ingested_at: str | None
    passages: list[PassageItem]


class FeedbackRequest(BaseModel):
    """Judgement of one result of a query, or (without `result_id`) of the query's whole answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    query_id: Annotated[str, Field(pattern=QUERY_ID)]
    result_id: Value | None = None
    label: Label
    comment: Annotated[str, Field(max_length=2000)] | None = None


class FeedbackResponse(_Answer):
    feedback_id: str
    warnings: list[str] = []


_Embedded = Annotated[str, Field(min_length=1, max_length=32_768)]


def _as_texts(value: object) -> object:
    """Return a text as a list of one. Raises ValueError for token ids, in which a wrong vocabulary can't be seen."""
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise ValueError(
            "token ids are not taken, since ids of another model's tokenizer (tiktoken's) would give wrong vectors "
            "without an error: send texts (LangChain: OpenAIEmbeddings(..., check_embedding_ctx_length=False))"
        )
    return [value] if isinstance(value, str) else value


def _of_bearable_size(texts: list[str]) -> list[str]:
    total = sum(map(len, texts))
    if total > MAX_DOCUMENT_CHARACTERS:
        raise ValueError(
            f"{total} characters together are more than {MAX_DOCUMENT_CHARACTERS}: send fewer texts at once"
        )
    return texts


class EmbeddingsRequest(BaseModel):
    """Request compatible with OpenAI; `input` is a text or a list of texts. `input_type` selects the prefix of models
    such as e5.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: Annotated[
        list[_Embedded],
        Field(min_length=1, max_length=2048),
        AfterValidator(_of_bearable_size),
        BeforeValidator(_as_texts),
        WithJsonSchema(
            TypeAdapter(_Embedded | Annotated[list[_Embedded], Field(min_length=1, max_length=2048)]).json_schema()
        ),
    ]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Integer | None = None
    user: str | None = None
    input_type: Literal["query", "passage"] = "passage"


class RerankDocumentsRequest(BaseModel):
    """Request compatible with Cohere and Jina; `documents` are texts, or objects of which `rank_fields` are ranked
    (default: `text`). `max_chunks_per_doc` is an upper limit: the beginning of a document is read, as one chunk.
    `priority` is taken and not used.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    query: Query
    documents: Annotated[
        list[Annotated[str, Field(max_length=MAX_DOCUMENT_CHARACTERS)] | dict[str, Any]],
        Field(min_length=1, max_length=MAX_RERANKED_DOCUMENTS),
    ]
    top_n: Annotated[Integer, Field(ge=1)] | None = None
    rank_fields: Annotated[list[str], Field(max_length=100)] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[Integer, Field(ge=1)] | None = None
    max_chunks_per_doc: Annotated[Integer, Field(ge=1)] | None = None
    priority: Annotated[Integer, Field(ge=0)] | None = None
    model: str | None = None
    timeout_ms: Annotated[Integer, Field(ge=1, le=600_000)] | None = None


class RerankedDocument(_Answer):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None
    """The document as it was sent; a text as ``{"text": ...}``."""


class ApiVersion(_Answer):
    version: Literal["1", "2"]


class RerankMeta(_Answer):
    api_version: ApiVersion
    warnings: list[str]


class RerankResponse(_Answer):
    """Ranked documents. `truncated`: number of documents that the model read only in part; null if unknown."""

    id: str
    meta: RerankMeta
    model: str
    results: list[RerankedDocument]
    truncated: int | None
    warnings: list[str] = []


class EmbeddingItem(_Answer):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(_Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(_Answer):
    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: Usage


class ModelItem(_Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(_Answer):
    object: Literal["list"] = "list"
    data: list[ModelItem]


class Health(_Answer):
    status: Literal["ok"]


class Readiness(_Answer):
    ready: bool
    problems: list[str]
    warnings: list[str]
    opensearch: dict[str, Any]
    embedding_model: str
    reranker: str | None
    generation: str
    passages: int | None


class ProblemItem(_Answer):
    loc: list[str | int]
    msg: str


class OpenAIError(_Answer):
    message: str
    type: str
    param: str | None
    code: str


class Problem(_Answer):
    """RFC 9457 problem document. `error` and `message`: the fields that clients of OpenAI and Cohere read, of the calls
    that imitate these APIs, and of unknown paths.
    """

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    reason: str | None = None
    """Reason of a rejected document: a stable code of docs/formats.md."""
    errors: list[ProblemItem] = []
    error: OpenAIError | None = None
    message: str | None = None
