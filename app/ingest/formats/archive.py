"""Safe opening of Office files and books (zip containers): sizes are checked before anything is unpacked.

`open_office` returns a container that python-docx and python-pptx can open safely: every part was unpacked under a byte
limit, none has a document type declaration (the vehicle of entity bombs and of access to other files; Office never
writes one), pictures and other media are removed, and namespaces of Strict OOXML are replaced by those of Transitional.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator

from lxml import etree

from app.errors import DocumentRejected
from app.ingest.formats.limits import Limits, megabytes

DAMAGE = (
    etree.LxmlError,
    zipfile.BadZipFile,
    LookupError,
    ValueError,
    AttributeError,
    TypeError,
    OverflowError,
)
"""Errors of lxml and the Office libraries for malformed parts; each library has one of its own besides these."""

_UNREADABLE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, ValueError)
_MAX_ENTRIES = 20_000
_MAX_RATIO = 200
"""Maximum ratio of unpacked to packed size. XML of real slides and tables reaches 20 to 60;
deflate's limit is 1,032."""
_RATIO_FROM = 20_000_000
"""Unpacked bytes below which any ratio is harmless."""
_MAX_XML = 300_000_000
_CHUNK = 1 << 20

_DOCTYPE = re.compile(rb"<\s*!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_XML_NAME = re.compile(r"(?i)\.(xml|rels)$")
_STRICT = b"http://purl.oclc.org/ooxml/"
_STRICT_TO_TRANSITIONAL = tuple(
    (_STRICT + part, b"http://schemas.openxmlformats.org/" + part.replace(b"/", b"/2006/", 1))
    for part in (
        b"officeDocument/relationships",
        b"officeDocument/math",
        b"officeDocument/extendedProperties",
        b"officeDocument/customProperties",
        b"officeDocument/docPropsVTypes",
        b"officeDocument/customXml",
        b"wordprocessingml/main",
        b"presentationml/main",
        b"spreadsheetml/main",
        b"drawingml/main",
        b"drawingml/chart",
        b"drawingml/diagram",
        b"drawingml/picture",
        b"drawingml/lockedCanvas",
        b"drawingml/chartDrawing",
        b"drawingml/wordprocessingDrawing",
        b"drawingml/spreadsheetDrawing",
    )
)


def entry_names(data: bytes) -> frozenset[str]:
    """Return the names in a zip container; empty for any other file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return frozenset(archive.namelist())
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, UnicodeDecodeError):
        return frozenset()


def media_type(data: bytes) -> str:
    """Return what the entry ``mimetype`` of a zip container says; empty if it says nothing readable."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open("mimetype") as entry:
            return entry.read(200).decode("ascii", "replace").strip()
    except (*_UNREADABLE, RuntimeError, KeyError):
        return ""


def open_office(
    data: bytes,
    limits: Limits,
    kept: re.Pattern[str] = _XML_NAME,
    change: Callable[[str, bytes], bytes] | None = None,
) -> io.BytesIO:
    """Return a checked copy of an Office container; entries that are not `kept` are empty. `change` gets each entry.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w", zipfile.ZIP_STORED) as target:
        for name, content in read_parts(data, limits, kept):
            target.writestr(name, change(name, content) if change else content)
    checked.seek(0)
    return checked


def read_parts(data: bytes, limits: Limits, kept: re.Pattern[str] = _XML_NAME) -> Iterator[tuple[str, bytes]]:
    """Yield the name and checked content of each entry of a zip container; empty content for those that are not `kept`.

    Raises:
        DocumentRejected: ``zip-bomb``, ``encrypted``, ``broken``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            yield from _parts(source, limits, kept)
    except _UNREADABLE as error:
        raise DocumentRejected(f"not a readable Office file: {_brief(error)}", reason="broken") from error
    except RuntimeError as error:  # zipfile's error for a required password
        raise DocumentRejected(
            "a part of the file is encrypted: save it without a password", reason="encrypted"
        ) from error


def _parts(source: zipfile.ZipFile, limits: Limits, kept: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    entries = source.infolist()
    budget = min(_MAX_XML, limits.memory_bytes // 8)
    if len(entries) > _MAX_ENTRIES:
        raise _bomb(f"{len(entries):,} entries, more than {_MAX_ENTRIES:,}")
    wanted = [entry for entry in entries if not entry.is_dir() and kept.search(entry.filename)]
    # all entries are checked by the directory's sizes, and those that are read by their unpacked size, too
    _check_ratio(sum(e.file_size for e in entries), sum(e.compress_size for e in entries))
    if sum(entry.file_size for entry in wanted) > budget:
        raise _bomb(
            f"it unpacks to {megabytes(sum(e.file_size for e in wanted))} of XML, more than {megabytes(budget)}"
        )
    if len({entry.header_offset for entry in entries}) < len(entries):
        raise _bomb("several entries share the same bytes")
    unpacked = packed = 0
    seen: set[str] = set()
    for entry in entries:
        if entry.is_dir() or entry.filename in seen:
            continue
        seen.add(entry.filename)
        if not kept.search(entry.filename):
            yield entry.filename, b""  # media: relationships name it, so it must exist, but nothing reads it
            continue
        pieces: list[bytes] = []
        packed += entry.compress_size
        with source.open(entry) as part:
            while piece := part.read(_CHUNK):
                unpacked += len(piece)
                if unpacked > budget:
                    raise _bomb(f"it unpacks to more than {megabytes(budget)} of XML")
                pieces.append(piece)
        _check_ratio(unpacked, packed)
        content = b"".join(pieces)
        is_xml = _XML_NAME.search(entry.filename) is not None
        yield entry.filename, _check_xml(content, entry.filename) if is_xml else content


def _check_xml(xml: bytes, name: str) -> bytes:
    plain = xml.replace(b"\x00", b"") if xml[:4].count(0) or xml[:2] in (b"\xff\xfe", b"\xfe\xff") else xml
    if _DOCTYPE.search(plain):
        raise DocumentRejected(
            f"{name!r} declares a document type or entities, which Office never writes", reason="zip-bomb"
        )
    if _STRICT in xml:
        for strict, transitional in _STRICT_TO_TRANSITIONAL:
            xml = xml.replace(strict, transitional)
    return xml


def _check_ratio(unpacked: int, packed: int) -> None:
    if unpacked > _RATIO_FROM and unpacked > _MAX_RATIO * max(packed, 1):
        raise _bomb(f"it unpacks {megabytes(packed)} to {megabytes(unpacked)}")


def _bomb(what: str) -> DocumentRejected:
    return DocumentRejected(f"a suspected zip bomb: {what}", reason="zip-bomb")


def _brief(error: Exception) -> str:
    return ascii(str(error))[1:-1][:120] or type(error).__name__
