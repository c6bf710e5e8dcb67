"""The server's settings, parsed once; each field is the environment variable ``BRAID_RERANKER_<NAME>``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from reranker.errors import ConfigurationError
from reranker.loopback import is_loopback
from reranker.session import WantedProvider

PREFIX = "BRAID_RERANKER_"


class ServerSettings(BaseSettings):
    """What `python -m reranker` runs by."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    model: Path
    """The cross-encoder's folder."""
    provider: WantedProvider = "auto"
    threads: int = Field(0, ge=0)
    """Of one inference; 0: one per core that the process may use."""

    host: str = "127.0.0.1"
    port: int = Field(8090, ge=0, le=65535)
    """0 takes a free one."""
    http_threads: int = Field(128, ge=1, le=1024)
    """Requests held at once; one that waits for its scores holds a thread."""
    key: SecretStr | None = None
    """Callers send it as ``Authorization: Bearer <key>``."""

    max_documents: int = Field(1000, ge=1)
    """Of one request."""
    max_queue_pairs: int = Field(4096, ge=1)
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    gather_ms: float = Field(2.0, ge=0, le=1000)
    """How long a batch that is not full waits for other requests."""
    timeout_ms: int = Field(10_000, ge=1, le=600_000)
    """Of a request that names none; no request may name more than ten times as much."""
    drain_s: int = Field(30, ge=0, le=600)
    """After SIGTERM: how long requests under way may take."""

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.key is None and not is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}HOST={self.host!r} can be reached from other machines, and no key protects the reranker: "
                f"set {PREFIX}KEY, or listen on 127.0.0.1"
            )
        if self.max_queue_pairs < self.max_documents:
            raise ValueError(
                f"{PREFIX}MAX_QUEUE_PAIRS={self.max_queue_pairs} is less than {PREFIX}MAX_DOCUMENTS="
                f"{self.max_documents}: a full request would never find room"
            )
        return self


def load_settings(**overrides: object) -> ServerSettings:
    """Parse the environment, with `overrides` (field names; None: not given) in front of it.

    Raises:
        ConfigurationError: naming each variable that is wrong, its value unless it is secret, and why.
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
        return f"{name} is not set: name the folder of a cross-encoder" if name == f"{PREFIX}MODEL" else message
    return f"{name}: {message}" if name == f"{PREFIX}KEY" else f"{name}={problem['input']!r}: {message}"
