"""The shapes of the answers, and of the requests that no other module owns; OpenAPI is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.access import ACCESS_FIELDS, AccessChange
from app.feedback.ids import PATTERN as QUERY_ID
from app.passage import LONGEST_READER, MOST_READERS, reader, without_control_characters
from app.search.request import Integer, IsoDate, Language, Query, Value
from app.store.query_log import Label

MAX_RERANKED_DOCUMENTS = 1000
MAX_DOCUMENT_CHARACTERS = 4 * 1024 * 1024
Acl = Annotated[
    list[Annotated[str, AfterValidator(reader), Field(min_length=1, max_length=LONGEST_READER)]],
    Field(max_length=MOST_READERS),
]
"""Who may read: groups, ``user:SUB``, ``public``, as they are; empty: the operator and admins."""
Restriction = Annotated[Acl, Field(min_length=1)]
"""Names of whom a reader must have one, too."""
Identifier = Annotated[Value, AfterValidator(without_control_characters)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Scores(_Answer):
    """What each stage gave this passage; null where the stage did not run or its score is not known.

    `lexical` and `fused` depend on all passages of a shard: only admins and the operator are shown them.
    """

    lexical: float | None = None
    dense: float | None = None
    fused: float | None = None
    rerank: float | None = None
    reranker: str | None = None
    """Which reranker made `rerank`."""


class ResultItem(_Answer):
    id: str
    document_id: str
    title: str
    section_heading: str
    text: str
    source_id: str
    source_type: str
    uri: str
    page: int | None
    pages: list[int] = []
    """All pages that the passage stands on; `page` is where it begins."""
    timestamp: str | None
    topic_tags: list[str]
    language: str | None = None
    """Where the source names it."""
    score: float
    """What orders the results; 1 / place where the score depends on word statistics and the caller is no admin."""
    scores: Scores
    duplicates: list[str] = []
    """Ids of passages that say nearly the same and were folded into this one."""
    highlights: dict[str, list[str]] | None = None
    """Field -> fragments with ``<mark>``, all else HTML-escaped; null where none were asked for or nothing matched."""


class DegradedItem(_Answer):
    stage: str
    reason: str


class SearchResponse(_Answer):
    query_id: str
    results: list[ResultItem]
    total: int
    timings: dict[str, float]
    degraded: list[DegradedItem]
    cache: Literal["miss", "exact", "near", "off"]
    """Where the answer came from; ``near``: it was made for a query that asks the same in other words."""
    cache_stale_ms: float | None = None
    """How old the answer is, where passages were added or replaced since it was made (BRAID_CACHE_STALENESS_MS)."""
    index_generation: int | None
    """Rises with every write to the tenant's passages; null where no Redis counts."""
    variants: dict[str, str] = {}
    """The feature flags that this request was answered with: flag -> variant."""
    explanation: dict[str, Any] | None = None


class CitationItem(_Answer):
    """`marker` is the place of the passage in `results`, from 1.

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


class DocumentRequest(BaseModel):
    """A ready document for ``POST /v1/documents``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    document_id: Identifier
    title: Annotated[str, Field(max_length=1000)] = ""
    text: Annotated[str, Field(min_length=1)]
    source_id: Identifier = "api"
    uri: Annotated[str, Field(max_length=2048)] = ""
    timestamp: IsoDate | None = None
    topic_tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=20)] = []
    language: Language | None = None
    acl: Acl | None = None
    """Without it a document keeps its readers, and a new one is everybody's (``public``)."""
    acl_1: Restriction | None = None
    """A restriction: a reader must have one of these names, too. Without it a document keeps its own, if any."""
    acl_2: Restriction | None = None
    acl_3: Restriction | None = None
    acl_4: Restriction | None = None


class UploadFields(BaseModel):
    """The fields that may come with a file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    document_id: Identifier
    source_id: Identifier = "upload"
    topic_tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=20)] = []
    acl: Acl | None = None
    """Without it a document keeps its readers, and a new one is everybody's (``public``)."""
    acl_1: Restriction | None = None
    """A restriction: a reader must have one of these names, too. Without it a document keeps its own, if any."""
    acl_2: Restriction | None = None
    acl_3: Restriction | None = None
    acl_4: Restriction | None = None


class DocumentResponse(_Answer):
    document_id: str
    passages: int
    status: Literal["created", "updated", "unchanged"]
    warnings: list[str] = []


class JobProblem(_Answer):
    """Why a job failed, or was lost: the problem document that the caller would have got."""

    type: str
    title: str
    status: int
    detail: str


class JobResponse(_Answer):
    """A document that is stored while nobody waits.

    `progress` counts passages that have been embedded. `lost`: the process that had the job is gone, or was stopped;
    the same request may be sent again. `heartbeat_at` is the last sign of life of the process.
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


class ReadersRequest(BaseModel):
    """Other lists of readers for a document that is there: one at least; those that are not named stay.

    An empty `acl` leaves the document to the operator and admins; an empty restriction is taken away.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    acl: Acl | None = None
    acl_1: Acl | None = None
    acl_2: Acl | None = None
    acl_3: Acl | None = None
    acl_4: Acl | None = None

    @property
    def change(self) -> AccessChange:
        """The lists that are named."""
        named = {name: getattr(self, name) for name in ACCESS_FIELDS}
        return {name: tuple(dict.fromkeys(entries)) for name, entries in named.items() if entries is not None}


class _Readers(_Answer):
    """The lists that are in force; a restriction that is not there is left out."""

    acl: list[str]
    acl_1: list[str] | None = None
    acl_2: list[str] | None = None
    acl_3: list[str] | None = None
    acl_4: list[str] | None = None


class ReadersResponse(_Readers):
    document_id: str
    passages: int
    status: Literal["updated", "unchanged"]


class PassageItem(_Answer):
    id: str
    position: int
    page: int | None
    pages: list[int] = []
    section_heading: str
    text: str
    token_count: int


class StoredDocument(_Readers):
    document_id: str
    title: str
    source_id: str
    source_type: str
    uri: str
    timestamp: str | None
    ingested_at: str | None
    topic_tags: list[str]
    language: str | None = None
    passages: list[PassageItem]


class FeedbackRequest(BaseModel):
    """What a caller says of one result of a query, or (without `result_id`) of the query's answer as a whole."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    query_id: Annotated[str, Field(pattern=QUERY_ID)]
    result_id: Value | None = None
    label: Label
    comment: Annotated[str, Field(max_length=2000)] | None = None


class FeedbackResponse(_Answer):
    feedback_id: str
    warnings: list[str] = []


class EmbeddingsRequest(BaseModel):
    """As OpenAI's; `input` is a text or a list of texts. `input_type` says which prefix a model such as e5 gets."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: (
        Annotated[str, Field(min_length=1, max_length=32_768)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=32_768)]], Field(min_length=1, max_length=256)]
    )
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Integer | None = None
    user: str | None = None
    input_type: Literal["query", "passage"] = "passage"


class RerankText(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: Annotated[str, Field(max_length=MAX_DOCUMENT_CHARACTERS)]


class RerankDocumentsRequest(BaseModel):
    """As Cohere's and Jina's; `documents` are texts, or objects with a `text`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    query: Query
    documents: Annotated[
        list[Annotated[str, Field(max_length=MAX_DOCUMENT_CHARACTERS)] | RerankText],
        Field(min_length=1, max_length=MAX_RERANKED_DOCUMENTS),
    ]
    top_n: Annotated[Integer, Field(ge=1)] | None = None
    return_documents: bool = False
    model: str | None = None
    timeout_ms: Annotated[Integer, Field(ge=1, le=600_000)] | None = None


class RerankedDocument(_Answer):
    index: int
    relevance_score: float
    document: RerankText | None = None


class RerankResponse(_Answer):
    """`truncated`: documents of which the model read only the beginning; null where that is not known."""

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


class Problem(_Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    reason: str | None = None
    """Of a document that was rejected: a stable code of docs/formats.md."""
    errors: list[ProblemItem] = []
