"""File formats: each file that `table` has a reader for becomes a `ParsedDocument`. See docs/formats.md."""

from app.ingest.formats.document import parse_file
from app.ingest.formats.limits import Limits
from app.ingest.formats.pool import ParserPool

__all__ = ["Limits", "ParserPool", "parse_file"]
