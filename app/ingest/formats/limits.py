"""Limits on the cost of one file, and the messages of rejections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import DocumentRejected

if TYPE_CHECKING:  # parser processes do without pydantic
    from app.config.retrieval import IngestSettings

MAX_TEXT = 64_000_000
"""Maximum characters of text in one document: more than any author's complete works, yet a few hundred MB of memory."""
MAX_BLOCKS = 2_000_000
"""Maximum blocks of one document: short blocks take far more memory than their text."""
MAX_ROWS = 200_000
"""Maximum rows that are read of a workbook or a CSV: about 20,000 passages. The report says how many were left out."""
MAX_SHEETS = 500
MAX_TITLE = 1_000
"""Maximum characters of a title: each passage is embedded and stored with it."""
_LEAST_GROWTH = 512 * 1024**2
_GROWTH_A_BYTE = 512
"""XML of Office files unpacks to 20 to 60 times its size, and its tree takes 8 times that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for one file: its size and the parser's memory (bytes), and the time of parsing (seconds)."""

    max_file_bytes: int = 200 * 1024**2
    timeout_s: float = 120.0
    memory_bytes: int = 3 * 1024**3

    @classmethod
    def of(cls, ingest: IngestSettings) -> Limits:
        """Return the limits from the settings."""
        return cls(ingest.max_file_bytes, ingest.parse_timeout_s, ingest.parse_memory_bytes)

    def growth(self, size: int) -> int:
        """Return the bytes by which a parser may grow for a file of `size` bytes: a small file that needs much is a
        bomb.
        """
        return min(self.memory_bytes, _LEAST_GROWTH + _GROWTH_A_BYTE * size)

    def out_of_memory(self, size: int) -> DocumentRejected:
        """Return the rejection of a file of `size` bytes that takes more memory than allowed."""
        bound = self.growth(size)
        remedy = ", or raise BRAID_INGEST_PARSE_MEMORY_BYTES" if bound == self.memory_bytes else ""
        return DocumentRejected(
            f"parsing takes more than {megabytes(bound)} of memory, the bound for a file of {megabytes(size)}: "
            f"split the file{remedy}",
            reason="out-of-memory",
        )


def megabytes(count: int) -> str:
    """Format bytes as ``12.3 MB``."""
    return f"{count / 1e6:,.1f} MB"
