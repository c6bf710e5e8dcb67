"""One frozen settings object, parsed once; nothing else in the code reads the environment.

Each field is the environment variable ``BRAID_<NAME>``; the three that other software already gave a name
(``OPENSEARCH_HOME``, ``JAVA_HOME``, ``XDG_CACHE_HOME``) keep it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.addresses import is_address, masked
from app.errors import ConfigurationError

VectorVariant = Literal["faiss-hnsw", "faiss-hnsw-fp16", "faiss-ivfpq", "faiss-on-disk", "faiss-exact", "lucene-hnsw"]
Language = Literal[
    "arabic", "armenian", "basque", "bengali", "brazilian", "bulgarian", "catalan", "cjk", "czech", "danish", "dutch",
    "english", "estonian", "finnish", "french", "galician", "german", "greek", "hindi", "hungarian", "indonesian",
    "irish", "italian", "latvian", "lithuanian", "norwegian", "persian", "portuguese", "romanian", "russian", "sorani",
    "spanish", "standard", "swedish", "thai", "turkish",
]  # fmt: skip
"""The language analyzers of OpenSearch."""
Precision = Literal["fp32", "fp16", "int8"]
Tenant = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
JWT_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Signatures of tokens that can be taken; all are asymmetric."""
_HTTP, _REDIS = ("http", "https"), ("redis", "rediss")
_QUOTED = "characters of a password other than letters and digits are written as %40, %2F and so on"
_ADDRESS = re.compile(r"https?://[^\s/,]+(/[^\s,]*)?")


def _http_address(value: str) -> str:
    if not is_address(value, _HTTP):
        raise ValueError(f"it is no address such as http://127.0.0.1:8000; {_QUOTED}")
    return value


def _redis_address(value: str) -> str:
    if not is_address(value, _REDIS) and not value.startswith("unix://"):
        raise ValueError(f"it is no address: write redis://host:port/number; {_QUOTED}")
    return value


HttpUrl = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_http_address)]
RedisUrl = Annotated[str, AfterValidator(_redis_address)]


def _addresses(value: str) -> str:
    """Addresses separated by commas, each once, without blanks and slashes at their ends."""
    parts = [part.strip() for part in value.split(",")]
    for part in parts:
        if not _ADDRESS.fullmatch(part) or not is_address(part, _HTTP):
            raise ValueError(
                f"each must be an address such as http://127.0.0.1:9200; several are separated by commas; {_QUOTED}"
            )
    return ",".join(dict.fromkeys(part.rstrip("/") for part in parts))


HttpUrls = Annotated[str, AfterValidator(_addresses)]


def _folder(use: Literal["cache", "data"]) -> Path:
    """Root's own folders are closed to the account under which root starts OpenSearch, so root gets the system's."""
    if os.geteuid() == 0:
        return Path("/var/cache/braid" if use == "cache" else "/var/lib/braid")
    return Path(platformdirs.user_cache_dir("braid") if use == "cache" else platformdirs.user_data_dir("braid"))


class Settings(BaseSettings):
    """All settings of the service, the command line and the embedded node."""

    model_config = SettingsConfigDict(
        env_prefix="BRAID_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    # the store
    opensearch_url: HttpUrls | None = None
    """One address, or several of one cluster, separated by commas: when a node is away, the next is asked."""
    opensearch_user: str | None = None
    opensearch_password: SecretStr | None = None
    opensearch_ca_file: Path | None = None
    opensearch_timeout_s: float = Field(10.0, gt=0)
    vector_variant: VectorVariant | None = None
    """None: the best that the cluster can hold (``faiss-hnsw`` where FAISS is native, else ``faiss-exact``)."""
    on_disk_compression: Literal["2x", "4x", "8x", "16x", "32x"] = "32x"
    shards: int = Field(1, ge=1, le=1024)
    replicas: int = Field(0, ge=0, le=10)

    # Redis
    redis_url: RedisUrl | None = None

    # caches; each can be switched off by its flag
    response_cache_ttl_s: int = Field(600, ge=1, le=86_400)
    cache_staleness_ms: int = Field(0, ge=0, le=60_000)
    """How old a cached answer may be although documents were added or replaced since. 0: never older than the store.
    Deletions and narrowed ACLs are never bridged."""
    near_cache_threshold: float = Field(0.8, ge=0.5, le=1)
    """Cosine similarity from which two queries are looked at as the same."""
    embedding_cache_entries: int = Field(4096, ge=0, le=1_000_000)
    """Of each worker; Redis keeps more."""
    cache_ttl_s: int = Field(3600, ge=1, le=604_800)
    """How long Redis keeps embeddings of queries and scores of rerankers."""

    # feature flags
    flags_file: Path | None = None
    """A flagd file, read again when it changes. None: the flags that ship with Braid."""
    flagd: str | None = Field(None, pattern=r"^[^\s/:]+:\d{1,5}$")
    """``host:port`` of a flagd server, in place of the file."""

    # the embedding model
    embedding_model: str = "all-MiniLM-L6-v2"
    """``all-MiniLM-L6-v2``, ``e5-small-v2``, or a name of your own for the folder in ``embedding_path``."""
    embedding_path: Path | None = None
    """A folder with ``model.onnx`` and ``tokenizer.json``; None: the model that the embedded pom.xml resolves."""
    embedding_precision: Precision = "fp32"
    embedding_max_tokens: int = Field(256, ge=16, le=8192)
    embedding_query_prefix: str | None = None
    embedding_passage_prefix: str | None = None
    embedding_threads: int = Field(0, ge=0)
    """Intra-op threads of ONNX Runtime; 0: as many as there are cores."""
    embedding_provider: Literal["auto", "cuda", "openvino", "cpu"] = "auto"

    # passages
    passage_tokens: int = Field(200, ge=100, le=300)
    passage_overlap: int = Field(0, ge=0, le=100)
    ingest_max_file_bytes: int = Field(200 * 1024 * 1024, gt=0)
    ingest_parse_timeout_s: float = Field(120.0, gt=0)
    ingest_parse_memory_bytes: int = Field(3 * 1024**3, gt=0)
    ingest_threads: int = Field(0, ge=0)
    """Intra-op threads of the ingest process, for documents that come over HTTP. 0: half of the cores, at least 1."""

    # search
    language: Language = "english"
    """Analyzer of the lexical leg: stop words and stemming of one language; ``standard`` has neither."""
    candidates: int | None = Field(None, ge=10, le=1000)
    """None: as tuned, else 100."""
    alpha: float | None = Field(None, ge=0, le=1)
    """A fixed dense share. None: learned for each query, else as tuned, else 0.4."""
    learned_fusion: bool = True
    hybrid_way: Literal["legs", "native"] = "legs"
    rrf_rank_constant: int = Field(60, ge=1, le=10000)
    timeout_ms: int = Field(10_000, ge=50, le=600_000)

    # reranking
    reranker: Literal["auto", "cross-encoder", "late-interaction", "none"] = "auto"
    """``auto``: the cross-encoder where `reranker_model` or `reranker_url` names one, else late interaction where the
    embedding model gives vectors for tokens and `token_vectors` is on, else none."""
    reranker_model: Path | None = None
    """The folder of a cross-encoder, run in this process (docs/reranker.md)."""
    reranker_url: HttpUrl | None = None
    """A server that speaks ``POST /v1/rerank``: ``python -m reranker`` elsewhere, or another maker's."""
    reranker_key: SecretStr | None = None
    reranker_threads: int = Field(0, ge=0)
    reranker_provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = "auto"
    rerank_default: bool = True
    """Whether hybrid searches are reranked that do not say."""
    rerank_depth: int | None = Field(None, ge=1, le=1000)
    """Candidates that are reranked, best fused first. None: as tuned, else the reranker's own (20; late interaction
    50)."""
    rerank_weight: float | None = Field(None, ge=0, le=1)
    """Share of the reranker in the final score. None: as tuned, else the model's own."""
    rerank_budget_ms: int = Field(300, ge=1, le=60_000)
    """Time after which the rest keeps its fused order."""
    rerank_skip_margin: float | None = Field(None, ge=0, le=1)
    """Searches whose best candidate leads by so much of the candidates' range of scores are not reranked. None: off."""
    token_vectors: bool = True
    """Keep the vectors of each passage's tokens in the store, for late interaction."""

    # answers
    llm_url: HttpUrl | None = None
    llm_model: str = "default"
    llm_api_key: SecretStr | None = None
    llm_timeout_s: float = Field(60.0, gt=0)
    llm_max_tokens: int = Field(512, ge=16)
    context_size: int = Field(5, ge=1, le=50)
    """Passages that an answer is made from."""
    llm_context_tokens: int = Field(3000, ge=256)
    """Rough bound on the tokens of the prompt's passages (counted by the embedding model's tokenizer)."""

    # the query log
    query_log: Literal["full", "hashed", "off"] = "full"
    """``hashed`` keeps no text: queries are recognised by an HMAC under `query_log_key`."""
    query_log_key: SecretStr | None = Field(None, min_length=16)
    query_log_days: int = Field(90, ge=1, le=36_500)
    """Monthly indexes that are older as a whole are removed by `braid feedback purge`, never by itself."""

    # the service
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=64)
    threads: int = Field(16, ge=1, le=512)
    concurrency: int | None = Field(None, ge=1, le=512)
    """Searches and answers that one process works on at once. None: 2 for each core, at least 4."""
    queue: int = Field(32, ge=0, le=4096)
    """Requests that may wait for their turn; more are told to come back (429)."""
    writes: int = Field(16, ge=1, le=512)
    """Writes that one process holds at once, those that wait included; one caller's are at most what it leaves free."""
    write_timeout_s: float = Field(30.0, gt=0, le=600)
    """From the moment at which a write has arrived to its answer."""
    write_bytes: int = Field(64 * 1024 * 1024, gt=0)
    """Bytes of bodies that one process has in memory at once."""
    max_text_bytes: int = Field(4 * 1024 * 1024, gt=0)
    """Of one document that comes over HTTP: its JSON body, or the text in its file."""
    job_bytes: int = Field(128 * 1024, ge=0)
    """Documents (JSON bodies, files) from this size are answered 202 with a job."""
    jobs: int = Field(32, ge=1, le=4096)
    """Jobs that one process has, running and queued."""
    job_timeout_s: int = Field(3600, gt=0)
    """From the moment at which a job begins."""
    job_days: int = Field(7, ge=1, le=3650)
    """Records of older jobs are deleted in passing."""
    spool_bytes: int = Field(1024**3, gt=0)
    """Bytes of sent files that one process has on disk at once, below TMPDIR."""
    worker_max_requests: int = Field(0, ge=0)
    """A worker is replaced after about so many requests. 0: never."""
    tenant: Tenant = "default"
    """Of the operator (`api_key`, or loopback without any key), and of the command line."""
    cors_origins: str | None = None
    """Origins whose pages may call the service, separated by commas."""
    audit_log: str = "stderr"
    """``off``, ``stderr``, or a file that lines of JSON are appended to."""

    # who may ask
    api_key: SecretStr | None = None
    """The operator's key: every role, every document of `tenant`."""
    keys_secret: SecretStr | None = Field(None, min_length=32)
    """What `braid keys` authenticates keys with; the same for all workers and hosts. Without it there are no keys."""
    jwt_jwks_url: HttpUrl | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_algorithms: str = "RS256,PS256,ES256,EdDSA"
    jwt_tenant_claim: str = "tenant"
    jwt_groups_claim: str = "groups"
    jwt_roles_claim: str = "roles"
    jwt_leeway_s: int = Field(10, ge=0, le=300)
    rate_limit_key: str | None = None
    """Of each caller, such as ``600/minute;100000/day``; a key may have its own."""
    rate_limit_tenant: str | None = None
    """Of all callers of a tenant together."""
    max_body_bytes: int = Field(64 * 1024 * 1024, gt=0)

    # the command line as a client
    url: HttpUrl = "http://127.0.0.1:8080"

    # this machine
    opensearch_home: Path | None = Field(None, validation_alias=AliasChoices("OPENSEARCH_HOME", "opensearch_home"))
    java_home: Path | None = Field(None, validation_alias=AliasChoices("BRAID_JAVA_HOME", "JAVA_HOME", "java_home"))
    knn_lib: Path | None = None
    cache_dir: Path = Field(default_factory=lambda: _folder("cache"))
    data_dir: Path = Field(default_factory=lambda: _folder("data"))

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.passage_overlap >= self.passage_tokens // 2:
            raise ValueError(
                f"BRAID_PASSAGE_OVERLAP={self.passage_overlap} must be less than half of "
                f"BRAID_PASSAGE_TOKENS={self.passage_tokens}"
            )
        if self.reranker_model is not None and self.reranker_url is not None:
            raise ValueError("BRAID_RERANKER_MODEL and BRAID_RERANKER_URL both name a cross-encoder: leave one out")
        if self.reranker == "cross-encoder" and self.reranker_model is None and self.reranker_url is None:
            raise ValueError(
                "BRAID_RERANKER=cross-encoder needs BRAID_RERANKER_MODEL (a folder) or BRAID_RERANKER_URL (a server)"
            )
        self._check_credentials()
        if self.query_log == "hashed" and self.query_log_key is None:
            raise ValueError(
                "BRAID_QUERY_LOG=hashed needs BRAID_QUERY_LOG_KEY, a secret of 16 characters or more that stays the "
                "same (`openssl rand -hex 32` makes one): without it, who reads the log could try out guesses"
            )
        return self

    @property
    def opensearch_urls(self) -> tuple[str, ...]:
        """The addresses in `opensearch_url`; none where it is None."""
        return tuple(self.opensearch_url.split(",")) if self.opensearch_url else ()

    def _check_credentials(self) -> None:
        key = self.api_key.get_secret_value() if self.api_key is not None else "-"
        if not all("!" <= ch <= "~" and ch != "," for ch in key):
            raise ValueError(
                "BRAID_API_KEY must be visible ASCII without spaces and commas: headers carry nothing else"
            )
        if self.jwt_jwks_url is not None and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "BRAID_JWT_JWKS_URL needs BRAID_JWT_ISSUER and BRAID_JWT_AUDIENCE: without both, tokens that were made "
                "for other services, or by others, would be taken"
            )
        if self.jwt_jwks_url is None and (self.jwt_issuer or self.jwt_audience):
            raise ValueError("BRAID_JWT_ISSUER and BRAID_JWT_AUDIENCE need BRAID_JWT_JWKS_URL, the issuer's keys")
        unknown = [name for name in self.jwt_algorithm_names if name not in JWT_ALGORITHMS]
        if unknown or not self.jwt_algorithm_names:
            raise ValueError(
                f"BRAID_JWT_ALGORITHMS={self.jwt_algorithms!r}: there are {', '.join(JWT_ALGORITHMS)} (those with a "
                "shared secret, and `none`, are never taken)"
            )

    @property
    def jwt_algorithm_names(self) -> tuple[str, ...]:
        """The signature algorithms that tokens may have."""
        return tuple(name.strip() for name in self.jwt_algorithms.split(",") if name.strip())

    @property
    def embedding_id(self) -> str:
        """What the store records as `embedding_model`: vectors of two precisions are not the same vectors."""
        if self.embedding_precision == "fp32":
            return self.embedding_model
        return f"{self.embedding_model}-{self.embedding_precision}"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, str) else value

    def as_environment(self) -> dict[str, str]:
        """The settings as variables, for a child process that must have exactly these."""
        found = {}
        for name, value in self:
            if value is None:
                continue
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            found[_VARIABLES.get(name, f"BRAID_{name.upper()}")] = str(plain)
        return found


_VARIABLES = {"opensearch_home": "OPENSEARCH_HOME"}


def load_settings(**overrides: object) -> Settings:
    """Parse the environment, with `overrides` (field names) in front of it.

    Raises:
        ConfigurationError: naming each variable that is wrong, its value unless it is secret, and why.
    """
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = "BRAID_" + "_".join(str(p) for p in problem["loc"]).upper() if problem["loc"] else "settings"
            secret = any(word in name for word in ("KEY", "PASSWORD"))
            value = problem["input"]
            value = masked(value) if isinstance(value, str) else value
            shown = "" if secret or not problem["loc"] else f"={value!r}"
            lines.append(f"{name}{shown}: {problem['msg']}")
        raise ConfigurationError("; ".join(lines)) from error


@cache
def settings() -> Settings:
    """The process-wide settings, parsed at the first call."""
    return load_settings()
