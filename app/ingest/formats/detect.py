"""Detection of a file's format: by its content, and by its extension only if the content is ambiguous."""

from __future__ import annotations

import re
from pathlib import Path

from app.errors import DocumentRejected
from app.ingest.formats.archive import entry_names, media_type
from app.ingest.formats.plaintext import decode
from app.ingest.formats.table import HTML, MARKDOWN, MSG, PDF, Format, formats, named_by, of_media_type, readable

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
    (b"SQLite format 3\x00", "a database"),
    (b"%!PS", "PostScript"),
)
_OLE = _MAGIC[0][0]
_OLE_ENCRYPTED, _OLE_MAIL = (name.encode("utf-16-le") for name in ("EncryptedPackage", "__properties_version1.0"))
_HTML = re.compile(r"(?is)\A\s*+(?><\?xml[^>]*\?>\s*)?+(?>(?:<!--.*?-->\s*)*)<(!doctype\s+html|html[\s>])")
"""Each part is possessive or atomic, since backtracking over comments would double the time with each of them."""
_HEAD = 1024
"""Bytes within which a PDF's header may begin (ISO 32000, implementation note 13)."""


def detect(data: bytes, name: str) -> Format:
    """Return the format of a file's content.

    Raises:
        DocumentRejected: ``unsupported-type``, with the probable type of the file and the supported ones; ``encrypted``
            for an Office file with a password; ``broken`` for an Office file whose container can't be opened.
    """
    suffix = Path(name).suffix.lower()
    named = named_by(suffix)
    if b"%PDF-" in data[:_HEAD] and (named in (PDF, None) or data.lstrip()[:5] == b"%PDF-"):
        return PDF
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        return _zipped(data, named)
    for format in formats():
        if data.startswith(format.magic):
            return format
    for magic, what in _MAGIC:
        if data.startswith(magic):
            if magic == _OLE and _OLE_ENCRYPTED in data:
                raise DocumentRejected("the file needs a password: save it without one", reason="encrypted")
            if magic == _OLE and _OLE_MAIL in data:
                return MSG
            raise unsupported(what)
    if named is not None and named.is_binary:
        raise DocumentRejected(
            f"named {suffix} but its content is not: the file is damaged, or has the wrong extension", reason="broken"
        )
    if _HTML.match(decode(data[:65536], whole=len(data) <= 65536)):
        return MARKDOWN if named is MARKDOWN else HTML
    if named is None:
        raise unsupported(f"a {suffix} file")
    return named


def _zipped(data: bytes, named: Format | None) -> Format:
    names = entry_names(data)
    for format in formats():
        if any(name.startswith(part) for part in format.parts for name in names):
            return format
    if "mimetype" in names and (stated := of_media_type(media_type(data))):
        return stated
    if named is not None and named.is_binary:
        if not names:
            raise DocumentRejected("the container of the Office file is damaged: save it again", reason="broken")
        raise DocumentRejected("the Office file contains no document", reason="broken")
    raise unsupported("a zip archive")


def unsupported(what: str) -> DocumentRejected:
    """Return the rejection of a file that no parser reads."""
    return DocumentRejected(f"{what} is not supported; supported are {readable()}", reason="unsupported-type")
