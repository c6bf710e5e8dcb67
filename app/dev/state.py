"""State file of `braid up`, with which other commands find the running parts: ``<data folder>/braid.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import orjson
import psutil
from pydantic import SecretStr

from app.config import Settings
from app.provision.folders import write_new_file

_NAME = "braid.json"
AUDIT_FILE = "audit.jsonl"
"""Name of the audit log of `braid up` in its data folder."""


@dataclass(frozen=True, slots=True)
class LocalState:
    """Addresses and credentials of a running `braid up`, and its process."""

    url: str
    opensearch_url: str
    redis_url: str
    pid: int
    flags_file: str | None = None
    opensearch_user: str | None = None
    opensearch_password: str | None = None

    @property
    def opensearch_login(self) -> str:
        """The addresses of OpenSearch, each with user and password, for clients; not for display."""
        if self.opensearch_user is None or self.opensearch_password is None:
            return self.opensearch_url
        known = f"{quote(self.opensearch_user, safe='')}:{quote(self.opensearch_password, safe='')}"
        return self.opensearch_url.replace("://", f"://{known}@")


def write(data_dir: Path, state: LocalState) -> None:
    """Write the file for other commands, readable by the same user only."""
    write_new_file(data_dir / _NAME, orjson.dumps(asdict(state)).decode(), mode=0o600)


def remove(data_dir: Path) -> None:
    (data_dir / _NAME).unlink(missing_ok=True)


def read(data_dir: Path) -> LocalState | None:
    """Return the state of the `braid up` that runs with that data folder; None if none does."""
    try:
        state = LocalState(**orjson.loads((data_dir / _NAME).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return state if psutil.pid_exists(state.pid) else None


def audit_target(settings: Settings) -> str:
    """Return the target of the audit log: as set, or else the file of a `braid up` with the same data folder."""
    file = settings.machine.data_dir / AUDIT_FILE
    return (
        str(file)
        if "audit_log" not in settings.server.model_fields_set and file.is_file()
        else settings.server.audit_log
    )


def with_running(settings: Settings) -> Settings:
    """Return `settings`, completed with the addresses of a running `braid up`."""
    state = read(settings.machine.data_dir)
    if state is None:
        return settings
    found: dict[str, str | Path | SecretStr] = {}
    if settings.opensearch.url is None:
        found["opensearch_url"] = state.opensearch_url
        if state.opensearch_user is not None and state.opensearch_password is not None:
            found["opensearch_user"] = state.opensearch_user
            found["opensearch_password"] = SecretStr(state.opensearch_password)
    if settings.redis.url is None:
        found["redis_url"] = state.redis_url
    if "url" not in settings.client.model_fields_set:
        found["url"] = state.url
    if settings.flags.file is None and state.flags_file is not None:
        found["flags_file"] = Path(state.flags_file)
    return settings.with_values(**found)
