"""The server's settings, parsed once; each field is the environment variable ``BRAID_RERANKER_<NAME>``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from reranker.errors import ConfigurationError
from reranker.runtime.loopback import is_loopback
from reranker.runtime.session import WantedProvider

PREFIX = "BRAID_RERANKER_"


class ServerSettings(BaseSettings):
    """Settings of `python -m reranker`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    model: Path
    """The cross-encoder's folder."""
    provider: WantedProvider = "auto"
    threads: int = Field(0, ge=0)
    """Threads of one inference; 0 means one per core that the process may use."""

    host: str = "127.0.0.1"
    port: int = Field(8090, ge=0, le=65535)
    """0 picks a free port."""
    http_threads: int = Field(128, ge=1, le=1024)
    """Requests held at once; a request that waits for its scores holds a thread."""
    key: SecretStr | None = None
    """Callers send it as ``Authorization: Bearer <key>``."""

    max_documents: int = Field(1000, ge=1)
    """Maximum number of documents in one request."""
    max_queue_pairs: int = Field(4096, ge=1)
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    gather_ms: float = Field(2.0, ge=0, le=1000)
    """Milliseconds that a batch that is not full waits for other requests."""
    timeout_ms: int = Field(10_000, ge=1, le=600_000)
    """Timeout of a request that names none; a request may ask for at most ten times as much."""
    drain_s: int = Field(30, ge=0, le=600)
    """Seconds that requests under way may take after SIGTERM."""

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.key is None and not is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}HOST={self.host!r} is reachable from other machines without a key: "
                f"set {PREFIX}KEY, or listen on 127.0.0.1"
            )
        if self.max_queue_pairs < self.max_documents:
            raise ValueError(
                f"{PREFIX}MAX_QUEUE_PAIRS={self.max_queue_pairs} is less than {PREFIX}MAX_DOCUMENTS="
                f"{self.max_documents}: raise it, since the largest request would never fit"
            )
        return self


def load_settings(**overrides: object) -> ServerSettings:
    """Parse the environment; `overrides` (field names; None means not given) take precedence.

    Raises:
        ConfigurationError: names each invalid variable, its value unless it is secret, and the reason.
    """
    try:
        return ServerSettings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(problem) for problem in error.errors(include_url=False))) from error


def _explain(problem: ErrorDetails) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
    if problem["type"] == "missing":
        return f"{name} is not set: set it to the folder of a cross-encoder" if name == f"{PREFIX}MODEL" else message
    return f"{name}: {message}" if name == f"{PREFIX}KEY" else f"{name}={problem['input']!r}: {message}"
