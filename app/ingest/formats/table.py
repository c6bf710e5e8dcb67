"""The table of formats: by what each is told, and the function that reads it. Packages add rows by an entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from app.errors import DocumentRejected
from app.ingest.formats.limits import Limits
from app.passage import ParsedDocument

Reader = Callable[[bytes, str, Limits], ParsedDocument]
"""Gets a file's bytes, its name without extension, and the limits. Raises DocumentRejected for what it can't read."""

GROUP = "braid.formats"
"""Entry-point group: each entry is a `Format`. It goes before Braid's own, so that it can take over their suffixes."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format and its reader.

    `reader` is ``module:function``, imported for the first file that needs it, in a parser process. `parts` are
    beginnings of names in a zip container that only this format has; a container whose entry ``mimetype`` is one of
    `media_types` is of this format, too. `is_binary`: a file that only its name takes for this format is broken.
    """

    name: str
    reader: str
    suffixes: tuple[str, ...]
    media_types: tuple[str, ...] = ()
    magic: tuple[bytes, ...] = ()
    parts: tuple[str, ...] = ()
    is_binary: bool = False

    def load_reader(self) -> Reader:
        """Return the reader.

        Raises:
            DocumentRejected: ``unsupported-type``: a library that it needs is not installed.
        """
        module, _, function = self.reader.partition(":")
        try:
            reader: Reader = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            raise DocumentRejected(
                f"{self.name} can't be read, because {error.name!r} is not installed: pip install 'braid-rag[formats]'",
                reason="unsupported-type",
            ) from error
        return reader


_HERE = "app.ingest.formats"
_OPENXML = "application/vnd.openxmlformats-officedocument."
_OPENDOCUMENT = "application/vnd.oasis.opendocument."

PDF = Format("PDF", f"{_HERE}.pdf:parse", (".pdf",), ("application/pdf",), is_binary=True)
HTML = Format("HTML", f"{_HERE}.html:parse", (".html", ".htm", ".xhtml"), ("text/html", "application/xhtml+xml"))
MARKDOWN = Format("Markdown", f"{_HERE}.markdown:parse", (".md", ".markdown", ".mdown", ".mkd"), ("text/markdown",))
MSG = Format("Outlook mail", f"{_HERE}.mail:parse_msg", (".msg",), ("application/vnd.ms-outlook",), is_binary=True)
OWN = (
    PDF,
    Format(
        "PPTX",
        f"{_HERE}.pptx:parse",
        (".pptx", ".ppsx", ".potx", ".pptm"),
        (f"{_OPENXML}presentationml.presentation",),
        parts=("ppt/",),
        is_binary=True,
    ),
    Format(
        "DOCX",
        f"{_HERE}.docx:parse",
        (".docx", ".dotx", ".docm"),
        (f"{_OPENXML}wordprocessingml.document",),
        parts=("word/",),
        is_binary=True,
    ),
    Format(
        "XLSX",
        f"{_HERE}.xlsx:parse",
        (".xlsx", ".xlsm", ".xltx", ".xltm"),
        (f"{_OPENXML}spreadsheetml.sheet",),
        parts=("xl/",),
        is_binary=True,
    ),
    Format("CSV", f"{_HERE}.delimited:parse", (".csv", ".tsv", ".tab"), ("text/csv", "text/tab-separated-values")),
    Format("mail", f"{_HERE}.mail:parse", (".eml",), ("message/rfc822",)),
    MSG,
    *(
        Format(
            name.upper(),
            f"{_HERE}.opendocument:parse_{name}",
            (f".{name}", f".{template}"),
            (f"{_OPENDOCUMENT}{kind}", f"{_OPENDOCUMENT}{kind}-template"),
            is_binary=True,
        )
        for name, template, kind in (
            ("odt", "ott", "text"),
            ("ods", "ots", "spreadsheet"),
            ("odp", "otp", "presentation"),
        )
    ),
    Format("EPUB", f"{_HERE}.epub:parse", (".epub",), ("application/epub+zip",), is_binary=True),
    Format("RTF", f"{_HERE}.rtf:parse", (".rtf",), ("application/rtf", "text/rtf"), (b"{\\rtf",), is_binary=True),
    HTML,
    MARKDOWN,
    Format(
        "plain text",
        f"{_HERE}.plaintext:parse",
        (".txt", ".text", ".log", ".rst", ".adoc", ".asc", ""),
        ("text/plain",),
    ),
)


@cache
def formats() -> tuple[Format, ...]:
    """Return all formats; those that packages add come first."""
    return (*(entry.load() for entry in entry_points(group=GROUP)), *OWN)


def named_by(suffix: str) -> Format | None:
    """Return the format of a suffix (lower case, with its dot)."""
    return next((format for format in formats() if suffix in format.suffixes), None)


def of_media_type(media_type: str) -> Format | None:
    """Return the format of a media type (without parameters)."""
    return next((format for format in formats() if media_type in format.media_types), None)


def readable() -> str:
    """Return the names of all formats, for messages."""
    return f"{', '.join(format.name for format in formats())} and JSON Lines (.jsonl) of ready documents"
