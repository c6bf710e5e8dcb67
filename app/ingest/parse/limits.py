"""What one file may cost, and what a parser says when it refuses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

MAX_TEXT = 64_000_000
"""Characters of text in one document; more than the complete works of anybody, and still a few hundred MB of memory."""


class _IngestSettings(Protocol):
    @property
    def ingest_max_file_bytes(self) -> int: ...
    @property
    def ingest_parse_timeout_s(self) -> float: ...
    @property
    def ingest_parse_memory_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one file: its size and the memory of the parser (bytes), the time that parsing it may take (s)."""

    max_file_bytes: int = 200 * 1024**2
    timeout_s: float = 120.0
    memory_bytes: int = 3 * 1024**3

    @classmethod
    def of(cls, settings: _IngestSettings) -> Limits:
        """The limits that the settings name."""
        return cls(settings.ingest_max_file_bytes, settings.ingest_parse_timeout_s, settings.ingest_parse_memory_bytes)


def megabytes(count: int) -> str:
    """Bytes for people: ``12.3 MB``."""
    return f"{count / 1e6:,.1f} MB"
