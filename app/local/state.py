"""The file by which the other commands find what `braid up` has started: ``<data folder>/braid.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import orjson
import psutil
from pydantic import SecretStr

from app.config import Settings
from app.embedded.files import write_anew

_NAME = "braid.json"
AUDIT_FILE = "audit.jsonl"
"""Where `braid up` has the audit log written, in its data folder."""


@dataclass(frozen=True, slots=True)
class LocalState:
    """Addresses of a running `braid up`, what they want to know, and its process."""

    url: str
    opensearch_url: str
    redis_url: str
    pid: int
    flags_file: str | None = None
    opensearch_user: str | None = None
    opensearch_password: str | None = None

    @property
    def opensearch_login(self) -> str:
        """The addresses of OpenSearch with user and password in each, as clients take them; not for people's eyes."""
        if self.opensearch_user is None or self.opensearch_password is None:
            return self.opensearch_url
        known = f"{quote(self.opensearch_user, safe='')}:{quote(self.opensearch_password, safe='')}"
        return self.opensearch_url.replace("://", f"://{known}@")


def write(data_dir: Path, state: LocalState) -> None:
    """Leave the file for other commands, readable by the same user only."""
    write_anew(data_dir / _NAME, orjson.dumps(asdict(state)).decode(), mode=0o600)


def remove(data_dir: Path) -> None:
    (data_dir / _NAME).unlink(missing_ok=True)


def read(data_dir: Path) -> LocalState | None:
    """What runs with that data folder; None when nothing does."""
    try:
        state = LocalState(**orjson.loads((data_dir / _NAME).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return state if psutil.pid_exists(state.pid) else None


def with_running(settings: Settings) -> Settings:
    """`settings` with the addresses of a running `braid up` where the environment names none."""
    state = read(settings.data_dir)
    if state is None:
        return settings
    found: dict[str, str | Path | SecretStr] = {}
    if settings.opensearch_url is None:
        found["opensearch_url"] = state.opensearch_url
        if state.opensearch_user is not None and state.opensearch_password is not None:
            found["opensearch_user"] = state.opensearch_user
            found["opensearch_password"] = SecretStr(state.opensearch_password)
    if settings.redis_url is None:
        found["redis_url"] = state.redis_url
    if "url" not in settings.model_fields_set:
        found["url"] = state.url
    if settings.flags_file is None and settings.flagd is None and state.flags_file is not None:
        found["flags_file"] = Path(state.flags_file)
    return settings.model_copy(update=found)
