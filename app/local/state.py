"""The file by which the other commands find what `braid up` has started: ``<data folder>/braid.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil

from app.config import Settings

_NAME = "braid.json"
AUDIT_FILE = "audit.jsonl"
"""Where `braid up` has the audit log written, in its data folder."""


@dataclass(frozen=True, slots=True)
class LocalState:
    """Addresses of a running `braid up`, and its process."""

    url: str
    opensearch_url: str
    redis_url: str
    pid: int
    flags_file: str | None = None


def write(data_dir: Path, state: LocalState) -> None:
    """Leave the file for other commands, readable by the same user only."""
    path = data_dir / _NAME
    path.write_bytes(orjson.dumps(asdict(state)))
    path.chmod(0o600)


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
    found: dict[str, str | Path] = {}
    if settings.opensearch_url is None:
        found["opensearch_url"] = state.opensearch_url
    if settings.redis_url is None:
        found["redis_url"] = state.redis_url
    if "url" not in settings.model_fields_set:
        found["url"] = state.url
    if settings.flags_file is None and settings.flagd is None and state.flags_file is not None:
        found["flags_file"] = Path(state.flags_file)
    return settings.model_copy(update=found)
