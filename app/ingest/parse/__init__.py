"""Files -> `ParsedDocument`: PDF, PPTX, DOCX, HTML, Markdown and plain text. See docs/formats.md."""

from app.ingest.parse.document import detect_type, parse_file
from app.ingest.parse.limits import Limits
from app.ingest.parse.pool import ParserPool

__all__ = ["Limits", "ParserPool", "detect_type", "parse_file"]
