"""Detection of a file's format: by its content, and by its extension only if the content is ambiguous."""

from __future__ import annotations

import re
from pathlib import Path

from app.errors import DocumentRejected
from app.ingest.formats.archive import entry_names
from app.ingest.formats.plaintext import decode
from app.passage import SourceType

READ = "PDF, PPTX, DOCX, HTML, Markdown, plain text and JSON Lines (.jsonl) of ready documents"

_EXTENSIONS = {
    ".pdf": SourceType.PDF,
    ".pptx": SourceType.PPTX,
    ".ppsx": SourceType.PPTX,
    ".potx": SourceType.PPTX,
    ".pptm": SourceType.PPTX,
    ".docx": SourceType.DOCX,
    ".dotx": SourceType.DOCX,
    ".docm": SourceType.DOCX,
    ".html": SourceType.HTML,
    ".htm": SourceType.HTML,
    ".xhtml": SourceType.HTML,
    ".md": SourceType.MARKDOWN,
    ".markdown": SourceType.MARKDOWN,
    ".mdown": SourceType.MARKDOWN,
    ".mkd": SourceType.MARKDOWN,
    ".txt": SourceType.TEXT,
    ".text": SourceType.TEXT,
    ".log": SourceType.TEXT,
    ".rst": SourceType.TEXT,
    ".adoc": SourceType.TEXT,
    ".asc": SourceType.TEXT,
    "": SourceType.TEXT,
}
_BINARY = frozenset({SourceType.PDF, SourceType.PPTX, SourceType.DOCX})

_MAGIC = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file (.doc, .ppt, .xls) or an encrypted new one"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"{\\rtf", "rich text (RTF)"),
    (b"SQLite format 3\x00", "a database"),
    (b"%!PS", "PostScript"),
)
_OLE, _OLE_ENCRYPTED = _MAGIC[0][0], "EncryptedPackage".encode("utf-16-le")
_HTML = re.compile(r"(?is)\A\s*+(?><\?xml[^>]*\?>\s*)?+(?>(?:<!--.*?-->\s*)*)<(!doctype\s+html|html[\s>])")
"""Each part is possessive or atomic, since backtracking over comments would double the time with each of them."""
_HEAD = 1024
"""Bytes within which a PDF's header may begin (ISO 32000, implementation note 13)."""


def detect(data: bytes, name: str) -> SourceType:
    """Return the type of a file's content.

    Raises:
        DocumentRejected: ``unsupported-type``, with the probable type of the file and the supported ones; ``encrypted``
            for an Office file with a password; ``broken`` for an Office file whose container can't be opened.
    """
    suffix = Path(name).suffix.lower()
    named = _EXTENSIONS.get(suffix)
    if b"%PDF-" in data[:_HEAD] and (named in (SourceType.PDF, None) or data.lstrip()[:5] == b"%PDF-"):
        return SourceType.PDF
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        return _office(data, named)
    for magic, what in _MAGIC:
        if data.startswith(magic):
            if magic == _OLE and _OLE_ENCRYPTED in data:
                raise DocumentRejected("the file needs a password: save it without one", reason="encrypted")
            raise unsupported(what)
    if named in _BINARY:
        raise DocumentRejected(
            f"named {suffix} but its content is not: the file is damaged, or has the wrong extension", reason="broken"
        )
    if _HTML.match(decode(data[:65536], whole=len(data) <= 65536)):
        return SourceType.HTML if named is not SourceType.MARKDOWN else SourceType.MARKDOWN
    if named is None:
        raise unsupported(f"a {suffix} file")
    return named


def _office(data: bytes, named: SourceType | None) -> SourceType:
    names = entry_names(data)
    if any(name.startswith("word/") for name in names):
        return SourceType.DOCX
    if any(name.startswith("ppt/") for name in names):
        return SourceType.PPTX
    if not names and named in _BINARY:
        raise DocumentRejected("the container of the Office file is damaged: save it again", reason="broken")
    if any(name.startswith("xl/") for name in names):
        raise unsupported("a spreadsheet (.xlsx)")
    if "mimetype" in names:
        raise unsupported("an OpenDocument or EPUB file")
    if named in (SourceType.DOCX, SourceType.PPTX):
        raise DocumentRejected("the Office file contains no document", reason="broken")
    raise unsupported("a zip archive")


def unsupported(what: str) -> DocumentRejected:
    """Return the rejection of a file that no parser reads."""
    return DocumentRejected(f"{what} is not supported; supported are {READ}", reason="unsupported-type")
