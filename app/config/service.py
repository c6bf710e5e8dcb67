"""The settings of the service and of the machine that it runs on: limits, access, logs, folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from app.config.section import HttpUrl, OpenSearchRelease, Operational, Section, ShellWords, Tenant

JWT_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Signatures of tokens that can be taken; all are asymmetric."""


class FlagSettings(Section):
    """Feature flags."""

    model_config = SettingsConfigDict(env_prefix="BRAID_FLAGS_")

    file: Operational[Path | None] = None
    """A file of flags, read again when it changes (docs/flags.md). None: the flags that ship with Braid; `braid up`:
    `flags.json` in its data folder."""


class QueryLogSettings(Section):
    """The query log.

    Which searches were made, for feedback and evaluation (docs/feedback.md).
    """

    model_config = SettingsConfigDict(env_prefix="BRAID_QUERY_LOG_")

    mode: Operational[Literal["full", "hashed", "off"]] = Field("full", validation_alias="BRAID_QUERY_LOG")
    """`hashed` keeps no text: queries are recognised by an HMAC under `BRAID_QUERY_LOG_KEY`."""
    key: Operational[SecretStr | None] = Field(None, min_length=16)
    """Secret of `hashed`, 16 characters or more, the same for all workers and hosts."""
    days: Operational[int] = Field(90, ge=1, le=36_500)
    """Monthly indexes that are older as a whole are removed by `braid feedback purge`, never by themselves."""

    @model_validator(mode="after")
    def _has_its_key(self) -> QueryLogSettings:
        if self.mode == "hashed" and self.key is None:
            raise ValueError(
                "BRAID_QUERY_LOG=hashed needs BRAID_QUERY_LOG_KEY, a secret of 16 characters or more that stays the "
                "same (`openssl rand -hex 32` makes one): without it, who reads the log could try out guesses"
            )
        return self


class ServerSettings(Section):
    """The service."""

    host: Operational[str] = "127.0.0.1"
    """Address to listen on; anything but loopback needs keys or tokens (docs/access.md)."""
    port: Operational[int] = Field(8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    trusted_proxies: str | None = None
    """Addresses and networks, separated by commas, whose `X-Request-Start` is believed (docs/limits.md)."""
    workers: Operational[int] = Field(1, ge=1, le=64)
    """Processes."""
    threads: Operational[int] = Field(16, ge=1, le=512)
    """Threads of each process, if more than `BRAID_CONCURRENCY` + `BRAID_QUEUE` + `BRAID_WRITES` + 8."""
    worker_max_requests: Operational[int] = Field(0, ge=0)
    """A worker is replaced after about so many requests (docs/limits.md). 0: never."""
    cors_origins: Operational[str | None] = None
    """Origins whose pages may call `/v1/` and `/v2/`, separated by commas."""
    model_aliases: Operational[str] = ""
    """Names that clients have wired in, for names of `GET /v1/models`: `text-embedding-3-small=all-MiniLM-L6-v2`,
    several separated by commas (docs/http.md)."""
    chat_sources: Operational[Literal["none", "list"]] = "none"
    """`list`: the text of `/v1/chat/completions` ends with a Markdown list of what it cites, for front ends that show
    neither citations nor annotations. A request's `braid.sources` decides for itself."""
    mcp: Operational[bool] = True
    """Whether `/mcp` offers tools to agents (docs/agents.md): searching and reading, under each caller's own key."""
    audit_log: Operational[str] = "stderr"
    """`off`, `stderr`, or a file that lines of JSON are appended to; `braid up`: `audit.jsonl` in its data folder."""

    @model_validator(mode="after")
    def _aliases_are_pairs(self) -> ServerSettings:
        names = [name.strip() for name, _, _ in _pairs(self.model_aliases)]
        odd = [name for name, sign, target in _pairs(self.model_aliases) if not (name.strip() and target.strip())]
        twice = [name for name in names if names.count(name) > 1]
        if odd or twice:
            raise ValueError(
                f"BRAID_MODEL_ALIASES={self.model_aliases!r}: {(odd or twice)[0]!r} "
                f"{'is no pair: write name=model' if odd else 'is there twice'}, several separated by commas"
            )
        return self

    @property
    def aliases(self) -> dict[str, str]:
        """Other name of a model -> its name."""
        return {name.strip(): target.strip() for name, _, target in _pairs(self.model_aliases)}

    def model_named(self, name: str | None) -> str | None:
        """Return the model that a client's `name` stands for: the name itself, unless it is an alias."""
        return None if name is None else self.aliases.get(name, name)


def _pairs(text: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in text.split(",") if part.strip()]


class LimitSettings(Section):
    """Limits.

    These hold for one worker; the rates hold for all workers together where there is Redis (docs/limits.md).
    """

    concurrency: Operational[int | None] = Field(None, ge=1, le=512)
    """Searches and answers that are worked on at once. None: 2 for each core, at least 4."""
    queue: Operational[int] = Field(32, ge=0, le=4096)
    """Requests that may wait for their turn; more are told to come back (429)."""
    max_body_bytes: Operational[int] = Field(64 * 1024**2, gt=0)
    """Size of a request's body."""
    rate_limit_key: Operational[str | None] = None
    """Requests of each caller, such as `600/minute;100000/day`; a key may have its own."""
    rate_limit_tenant: Operational[str | None] = None
    """Requests of all callers of a tenant together."""
    writes: int = Field(16, ge=1, le=512)
    """Writes that are held at once, those that wait included; one caller's are at most what it leaves free."""
    write_timeout_s: float = Field(30.0, gt=0, le=600)
    """Seconds from the arrival of a write to its answer."""
    write_bytes: int = Field(64 * 1024**2, gt=0)
    """Bytes of bodies that are in memory at once."""
    max_text_bytes: int = Field(4 * 1024**2, gt=0)
    """Size of one document that comes over HTTP: its JSON body, or the text in its file."""
    job_bytes: int = Field(128 * 1024, ge=0)
    """Documents (JSON bodies, files) from this size are answered 202 with a job (docs/http.md)."""
    jobs: int = Field(32, ge=1, le=4096)
    """Jobs, running and queued."""
    job_timeout_s: int = Field(3600, gt=0)
    """Seconds that a job may run."""
    job_days: int = Field(7, ge=1, le=3650)
    """Days for which the record of a job is kept."""
    spool_bytes: int = Field(1024**3, gt=0)
    """Bytes of sent files that are on disk at once, below `TMPDIR`."""


class AccessSettings(Section):
    """Access.

    As soon as `BRAID_API_KEY`, `BRAID_KEYS_SECRET` or `BRAID_JWT_JWKS_URL` is set, every request needs a credential
    (docs/access.md).
    """

    tenant: Operational[Tenant] = "default"
    """Tenant of the operator (`BRAID_API_KEY`, or loopback without any key) and of the command line."""
    api_key: Operational[SecretStr | None] = None
    """The operator's key, sent as `Authorization: Bearer <key>`: every role, every document of `BRAID_TENANT`; visible
    ASCII without spaces and commas."""
    keys_secret: Operational[SecretStr | None] = Field(None, min_length=32)
    """Switches `braid keys` on: 32 characters or more, the same for the command line and all workers and hosts."""

    @model_validator(mode="after")
    def _key_can_be_sent(self) -> AccessSettings:
        key = self.api_key.get_secret_value() if self.api_key is not None else "-"
        if not all("!" <= ch <= "~" and ch != "," for ch in key):
            raise ValueError(
                "BRAID_API_KEY must be visible ASCII without spaces and commas: headers carry nothing else"
            )
        return self


class JwtSettings(Section):
    """Tokens."""

    model_config = SettingsConfigDict(env_prefix="BRAID_JWT_")

    jwks_url: Operational[HttpUrl | None] = None
    """Switches tokens on: where the identity provider publishes its keys; needs the next two."""
    issuer: Operational[str | None] = None
    """`iss` that tokens must have, exactly."""
    audience: Operational[str | None] = None
    """`aud` that tokens must have, exactly."""
    algorithms: Operational[str] = "RS256,PS256,ES256,EdDSA"
    """Signatures that tokens may have, separated by commas; also RS384, RS512, PS384, PS512, ES384, ES512; never one
    with a shared secret, never `none`."""
    tenant_claim: Operational[str] = "tenant"
    """Claim with the tenant: its name, or a path if there is none of that name (`realm_access.roles`)."""
    groups_claim: Operational[str] = "groups"
    """Claim with the groups."""
    roles_claim: Operational[str] = "roles"
    """Claim with the roles."""
    leeway_s: Operational[int] = Field(10, ge=0, le=300)
    """Seconds by which clocks may differ."""

    @model_validator(mode="after")
    def _names_one_issuer(self) -> JwtSettings:
        if self.jwks_url is not None and not (self.issuer and self.audience):
            raise ValueError(
                "BRAID_JWT_JWKS_URL needs BRAID_JWT_ISSUER and BRAID_JWT_AUDIENCE: without both, tokens that were made "
                "for other services, or by others, would be taken"
            )
        if self.jwks_url is None and (self.issuer or self.audience):
            raise ValueError("BRAID_JWT_ISSUER and BRAID_JWT_AUDIENCE need BRAID_JWT_JWKS_URL, the issuer's keys")
        unknown = [name for name in self.algorithm_names if name not in JWT_ALGORITHMS]
        if unknown or not self.algorithm_names:
            raise ValueError(
                f"BRAID_JWT_ALGORITHMS={self.algorithms!r}: there are {', '.join(JWT_ALGORITHMS)} (those with a "
                "shared secret, and `none`, are never taken)"
            )
        return self

    @property
    def algorithm_names(self) -> tuple[str, ...]:
        """The signature algorithms that tokens may have."""
        return tuple(name.strip() for name in self.algorithms.split(",") if name.strip())


class ClientSettings(Section):
    """The command line."""

    url: Operational[HttpUrl] = "http://127.0.0.1:8080"
    """The service that `search` and `ask` call; without it, that of a running `braid up`."""


def _folder(use: Literal["cache", "data"]) -> Path:
    """Return the default folder; the system's for root, whose own ones are closed to OpenSearch's account."""
    if os.geteuid() == 0:
        return Path("/var/cache/braid" if use == "cache" else "/var/lib/braid")
    return Path(platformdirs.user_cache_dir("braid") if use == "cache" else platformdirs.user_data_dir("braid"))


class MachineSettings(Section):
    """This machine."""

    opensearch_version: Operational[OpenSearchRelease | None] = None
    """The OpenSearch that `braid up` starts (`--opensearch`). None: that of the data folder, 2.19 for a new one."""
    opensearch_home: Operational[Path | None] = Field(
        None, validation_alias=AliasChoices("OPENSEARCH_HOME", "BRAID_OPENSEARCH_HOME")
    )
    """An unpacked official distribution to run in place of the assembled one."""
    java_home: Operational[Path | None] = Field(None, validation_alias=AliasChoices("BRAID_JAVA_HOME", "JAVA_HOME"))
    """A JDK 17 to 21 for OpenSearch 2.19, 21 to 25 for 3.x; `JAVA_HOME` is read, too. None: searched for."""
    java_options: Operational[ShellWords] = ""
    """Further options of the Java that runs OpenSearch,
    such as `-XX:+HeapDumpOnOutOfMemoryError`; quoted as in a shell."""
    knn_lib: Operational[Path | None] = None
    """A folder with the native FAISS libraries of the node's version, for the assembled node."""
    cache_dir: Operational[Path] = Field(default_factory=lambda: _folder("cache"))
    """The assembled node and the models; can be deleted. By default the user's cache folder, `/var/cache/braid` for
    root."""
    data_dir: Operational[Path] = Field(default_factory=lambda: _folder("data"))
    """The node's data, and the `secret` that it wants from clients: `braid up` names it. By default the user's data
    folder, `/var/lib/braid` for root."""
