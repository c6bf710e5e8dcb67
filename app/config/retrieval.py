"""The settings of what a search, an answer and an ingest work with: the store, the models, the caches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from app.config.embedding_models import Pooling
from app.config.section import (
    HttpUrl,
    HttpUrls,
    Language,
    Languages,
    Operational,
    Precision,
    RedisUrl,
    Section,
    VectorVariant,
)


class OpenSearchSettings(Section):
    """The cluster.

    Addresses may hold a user and a password; characters other than letters and digits are written as `%40` and so on.
    No message, log or answer shows a password.
    """

    model_config = SettingsConfigDict(env_prefix="BRAID_OPENSEARCH_")

    url: Operational[HttpUrls | None] = None
    """One address, or several of one cluster separated by commas: if a node fails, the next is asked
    (docs/failures.md). Without one, `braid up` starts its own node."""
    user: Operational[str | None] = None
    """User of basic authentication."""
    password: Operational[SecretStr | None] = None
    """Password of basic authentication."""
    ca_file: Operational[Path | None] = None
    """PEM file of the CA that signed the cluster's certificate. None: the system's CAs."""
    timeout_s: Operational[float] = Field(10.0, gt=0)
    """Seconds for calls that have no deadline of their own."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses in `url`; none where it is None."""
        return tuple(self.url.split(",")) if self.url else ()


class IndexSettings(Section):
    """The index.

    These hold for an index that `braid templates apply` makes (docs/store.md). An existing index keeps what it was made
    with.
    """

    vector_variant: VectorVariant | None = None
    """Engine and encoding of the vectors. None: the best that the cluster can hold, `faiss-hnsw` where FAISS is native,
    else `faiss-exact`."""
    on_disk_compression: Literal["2x", "4x", "8x", "16x", "32x"] = "32x"
    """Compression of `faiss-on-disk`."""
    shards: int = Field(1, ge=1, le=1024)
    """Primary shards."""
    replicas: int = Field(0, ge=0, le=10)
    """Copies of each shard. `braid up --nodes N` takes 1 or 2 if this is not set."""
    language: Language = "english"
    """Analyzer of the lexical leg, one of OpenSearch's language analyzers: stop words and stemming of that language.
    `standard` has neither."""
    languages: Languages | None = None
    """Codes of the collection's languages, such as `en,de,fr,zh`: each passage is also analysed in its own, and queries
    are searched in theirs (docs/languages.md). None: only `BRAID_LANGUAGE`. Other languages need a new index (`braid
    reindex`), but for Chinese, Japanese and Korean."""
    token_vectors: bool = True
    """Keep the packed vectors of each passage's tokens, for late interaction (docs/late-interaction.md)."""

    @property
    def language_codes(self) -> tuple[str, ...]:
        """The codes in `languages`; none where it is None."""
        return tuple(self.languages.split(",")) if self.languages else ()


class RedisSettings(Section):
    """Redis."""

    model_config = SettingsConfigDict(env_prefix="BRAID_REDIS_")

    url: Operational[RedisUrl | None] = None
    """`redis://host:port/number`, `rediss://` or `unix://`. Without one, `braid up` starts Valkey."""


class EmbeddingSettings(Section):
    """The embedding model.

    An index holds the vectors of one model and one precision. Another model needs another index: a service whose model
    differs from the index's is not ready and says so. docs/embedding.md has the measurements.
    """

    model_config = SettingsConfigDict(env_prefix="BRAID_EMBEDDING_")

    model: str = "all-MiniLM-L6-v2"
    """`all-MiniLM-L6-v2`, `bge-small-en-v1.5`, `multilingual-e5-small`, `e5-small-v2` (int8 only), or a name of your
    own for the folder in `BRAID_EMBEDDING_PATH`."""
    path: Path | None = None
    """A folder with `model.onnx` and `tokenizer.json` of any encoder. None: the published model. With
    `BRAID_EMBEDDING_URL` only its `tokenizer.json` is read, to count tokens; None: that of `all-MiniLM-L6-v2`."""
    file: str | None = None
    """Path of the ONNX file in that folder, such as `onnx/model_quantized.onnx`. None: `model.onnx`, there or in
    `onnx`."""
    url: HttpUrl | None = None
    """A server that speaks OpenAI's `POST /v1/embeddings`, in place of a model in the service
    (docs/embedding.md). `BRAID_EMBEDDING_MODEL` is then the model's name there."""
    key: Operational[SecretStr | None] = None
    """Key of that server, sent as `Authorization: Bearer <key>`."""
    send_input_type: bool = False
    """Tell that server by `input_type` whether a text is a `query` or a `passage`, as another Braid and NVIDIA NIM
    take it; they add their own prefixes, so that only prefixes that are set here are added to them."""
    precision: Precision = "fp32"
    """Precision of the model's weights."""
    calibration: Path | None = None
    """A folder that `braid calibrate` wrote for this model. None: the folder `calibration` in `BRAID_EMBEDDING_PATH` if
    there is one, else the model's own in Braid, if it has one (docs/calibration.md)."""
    max_tokens: int | None = Field(None, ge=16, le=8192)
    """Texts are cut to so many tokens. None: the model's own, 256 where its folder doesn't say."""
    pooling: Pooling | None = None
    """How a text's vector is made of its tokens', unless the model does it: their mean, or the first one. None: the
    model's own."""
    query_prefix: str | None = None
    """Put before each query, for models such as e5; `none` for no prefix. None: the model's own."""
    passage_prefix: str | None = None
    """Put before each passage, likewise."""
    threads: int = Field(0, ge=0)
    """Intra-op threads of ONNX Runtime; 0: as many as there are cores."""
    provider: Literal["auto", "cuda", "openvino", "cpu"] = "auto"
    """Where the model runs; `auto` takes CUDA, then OpenVINO, then CPU."""

    @property
    def id(self) -> str:
        """Name that the store records as `embedding_model`; different precisions have different vectors."""
        return self.model if self.precision == "fp32" else f"{self.model}-{self.precision}"


class PassageSettings(Section):
    """Passages."""

    model_config = SettingsConfigDict(env_prefix="BRAID_PASSAGE_")

    tokens: int = Field(200, ge=100, le=300)
    """Target length of a passage, counted by the embedding model's tokenizer."""
    overlap: int = Field(0, ge=0, le=100)
    """Tokens of whole sentences that are repeated from the passage before; less than half of
    `BRAID_PASSAGE_TOKENS`."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> PassageSettings:
        if self.overlap >= self.tokens // 2:
            raise ValueError(
                f"BRAID_PASSAGE_OVERLAP={self.overlap} must be less than half of BRAID_PASSAGE_TOKENS={self.tokens}"
            )
        return self


class IngestSettings(Section):
    """Ingest."""

    model_config = SettingsConfigDict(env_prefix="BRAID_INGEST_")

    max_file_bytes: int = Field(200 * 1024**2, gt=0)
    """Larger files are refused."""
    parse_timeout_s: float = Field(120.0, gt=0)
    """Seconds after which the parsing of a file is given up."""
    parse_memory_bytes: int = Field(3 * 1024**3, gt=0)
    """Address space of one parser process; small files get less (docs/formats.md)."""
    threads: int = Field(0, ge=0)
    """Threads that embed documents which come over HTTP, in a process of their own. 0: half of the cores, at least
    1."""


class SearchSettings(Section):
    """Search."""

    candidates: int | None = Field(None, ge=10, le=1000)
    """Passages that each leg gives to the fusion; pages cannot reach past it. None: as tuned, else 100."""
    alpha: float | None = Field(None, ge=0, le=1)
    """A fixed dense share of linear fusion. None: learned for each query, else as tuned, else 0.4."""
    learned_fusion: bool = True
    """Predict the weight of each query (docs/evaluation.md)."""
    hybrid_way: Literal["legs", "native"] = "legs"
    """`legs`: two legs side by side, fused in the service; `native`: one `hybrid` request through a search pipeline,
    where one gives what is asked for (docs/decisions.md)."""
    rrf_rank_constant: int = Field(60, ge=1, le=10000)
    """Rank constant of reciprocal rank fusion."""
    timeout_ms: Operational[int] = Field(10_000, ge=50, le=600_000)
    """Budget in milliseconds of a request that names no `timeout_ms`."""
    context_size: int = Field(5, ge=1, le=50)
    """Passages that an answer is made from, unless the request says `context_size`."""


class LlmSettings(Section):
    """The language model.

    Any server with an OpenAI-compatible API. Without one, answers are quotations.
    """

    model_config = SettingsConfigDict(env_prefix="BRAID_LLM_")

    url: HttpUrl | None = None
    """Base URL of the API."""
    model: str = "default"
    """The model's name there."""
    api_key: Operational[SecretStr | None] = None
    """Sent as `Authorization: Bearer <key>`."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds for a whole answer; a request's `timeout_ms` can shorten them, not extend them."""
    concurrency: Operational[int] = Field(400, ge=2, le=2048)
    """Answers that the model writes at once, for each worker; one caller may have as many as it leaves free. Others are
    quoted (docs/limits.md)."""
    max_tokens: int = Field(512, ge=16)
    """Tokens of an answer."""
    context_tokens: int = Field(3000, ge=256)
    """Rough bound on the tokens of the prompt's passages, counted by the embedding model's tokenizer."""


class RerankerSettings(Section):
    """The reranker.

    Which model reranks, and where it runs (docs/reranker.md).
    """

    model_config = SettingsConfigDict(env_prefix="BRAID_RERANKER_")

    kind: Literal["auto", "cross-encoder", "late-interaction", "none"] = Field(
        "auto", validation_alias="BRAID_RERANKER"
    )
    """`auto`: the cross-encoder if `BRAID_RERANKER_MODEL` or `BRAID_RERANKER_URL` names one, else late interaction if
    the embedding model gives vectors for tokens and `BRAID_TOKEN_VECTORS` is on, else none."""
    model: Path | None = None
    """Folder of a cross-encoder that runs in the service."""
    url: HttpUrl | None = None
    """A server that speaks `POST /v1/rerank`: `python -m reranker`, or another maker's."""
    key: Operational[SecretStr | None] = None
    """Key of that server."""
    threads: int = Field(0, ge=0)
    """Intra-op threads of a model in the service; 0: as many as there are cores."""
    provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = "auto"
    """Where a model in the service runs; `auto` takes CUDA, then OpenVINO, then CPU."""

    @model_validator(mode="after")
    def _names_one_model(self) -> RerankerSettings:
        if self.model is not None and self.url is not None:
            raise ValueError("BRAID_RERANKER_MODEL and BRAID_RERANKER_URL both name a cross-encoder: leave one out")
        if self.kind == "cross-encoder" and self.model is None and self.url is None:
            raise ValueError(
                "BRAID_RERANKER=cross-encoder needs BRAID_RERANKER_MODEL (a folder) or BRAID_RERANKER_URL (a server)"
            )
        return self


class RerankSettings(Section):
    """Reranking.

    When and how far a search is reranked.
    """

    model_config = SettingsConfigDict(env_prefix="BRAID_RERANK_")

    default: bool = True
    """Rerank hybrid searches that do not say whether to."""
    depth: int | None = Field(None, ge=1, le=1000)
    """Candidates that are reranked, best fused first. None: as tuned, else the reranker's own (20; late interaction
    50)."""
    weight: float | None = Field(None, ge=0, le=1)
    """Share of the reranker in the final score. None: as tuned, else the model's own."""
    budget_ms: int = Field(300, ge=1, le=60_000)
    """Milliseconds after which the rest keeps its fused order."""
    skip_margin: float | None = Field(None, ge=0, le=1)
    """Searches whose best candidate leads by this share of the candidates' range of scores are not reranked. None:
    off."""


class CacheSettings(Section):
    """Caches.

    Each can be switched off by its flag (docs/caches.md).
    """

    response_cache_ttl_s: Operational[int] = Field(600, ge=1, le=86_400)
    """Seconds for which whole answers are kept."""
    cache_staleness_ms: int = Field(0, ge=0, le=60_000)
    """Age in milliseconds that a cached answer may have although documents were added or replaced since. 0: never older
    than the store. Deletions and narrowed ACLs are never bridged."""
    near_cache_threshold: float | None = Field(None, ge=0.5, le=1)
    """Cosine similarity that two queries must have to be taken for the same (docs/near-queries.md). None: as the
    embedding model's calibration says; without a calibration none are, whatever stands here."""
    embedding_cache_entries: Operational[int] = Field(4096, ge=0, le=1_000_000)
    """Vectors of queries that each worker keeps; Redis keeps more. 0: only Redis does."""
    cache_ttl_s: Operational[int] = Field(3600, ge=1, le=604_800)
    """Seconds for which Redis keeps vectors of queries and scores of rerankers."""
