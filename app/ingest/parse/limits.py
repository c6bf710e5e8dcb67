"""What one file may cost, and what a parser says when it refuses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.errors import DocumentRejected

MAX_TEXT = 64_000_000
"""Characters of text in one document; more than the complete works of anybody, and still a few hundred MB of memory."""
MAX_BLOCKS = 2_000_000
"""Of one document: blocks of a few characters each take far more memory than their text."""
MAX_TITLE = 1_000
"""Characters: each passage is embedded and stored with the title."""
_LEAST_GROWTH = 512 * 1024**2
_GROWTH_A_BYTE = 512
"""XML of Office files unpacks to 20 to 60 times its size, and its tree takes 8 times that."""


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

    def growth(self, size: int) -> int:
        """Bytes by which a parser may grow for a file of `size` bytes: a small file that takes much is a bomb."""
        return min(self.memory_bytes, _LEAST_GROWTH + _GROWTH_A_BYTE * size)

    def out_of_memory(self, size: int) -> DocumentRejected:
        """The refusal of a file of `size` bytes that takes more than that."""
        bound = self.growth(size)
        remedy = ", or raise BRAID_INGEST_PARSE_MEMORY_BYTES" if bound == self.memory_bytes else ""
        return DocumentRejected(
            f"parsing takes more than {megabytes(bound)} of memory, the bound for a file of {megabytes(size)}: "
            f"split the file{remedy}",
            reason="out-of-memory",
        )


def megabytes(count: int) -> str:
    """Bytes for people: ``12.3 MB``."""
    return f"{count / 1e6:,.1f} MB"
