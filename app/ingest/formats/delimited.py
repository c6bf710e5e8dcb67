"""CSV and TSV reader: encoding and delimiter are found out, rows are read as a stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice

from app.errors import DocumentRejected
from app.ingest.formats.clean import title_from_name
from app.ingest.formats.limits import Limits
from app.ingest.formats.plaintext import encoding_of
from app.ingest.formats.rows import Rows
from app.passage import ParsedDocument, SourceType

_SAMPLE = 1 << 20
_DELIMITERS = ",;\t|"
_LOOKED_AT = 50
_LONGEST_CELL = 1_000_000


def parse(data: bytes, name: str, limits: Limits) -> ParsedDocument:
    """Parse rows; the first is the header that passages repeat.

    Raises:
        DocumentRejected: ``unsupported-type`` (binary data), ``empty``.
    """
    encoding = encoding_of(data[:_SAMPLE])
    with io.TextIOWrapper(io.BytesIO(data), encoding, "replace", newline="") as text:
        delimiter = _delimiter(text.read(_SAMPLE // 8))
        text.seek(0)
        rows, warnings = Rows(), list[str]()
        counted = _Lines(text)
        blocks = tuple(rows.blocks(_rows(counted, delimiter, warnings)))
    if not blocks:
        raise DocumentRejected("the file contains no text", reason="empty")
    if rows.left_out:
        warnings.append(f"{rows.left_out:,} rows left out: more than is read of one file; split it")
    if counted.replaced:
        warnings.append(f"{counted.replaced:,} characters that are not {encoding} left out")
    return ParsedDocument(
        title=title_from_name(name), blocks=blocks, source_type=SourceType.CSV, warnings=tuple(warnings)
    )


class _Lines:
    """Lines without zeros, which `csv` refuses; counts characters that could not be decoded."""

    def __init__(self, lines: io.TextIOWrapper) -> None:
        self._lines = lines
        self.replaced = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.replaced += line.count("\ufffd")
            yield line.replace("\0", "")


def _rows(lines: _Lines, delimiter: str, warnings: list[str]) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        yield from reader
    except csv.Error as error:
        warnings.append(f"what follows line {reader.line_num:,} left out, since it is no table: {error}")


def _delimiter(sample: str) -> str:
    """Return the delimiter that cuts the first rows into most cells, the same number in most of them."""

    def fitness(delimiter: str) -> tuple[float, int]:
        try:
            rows = list(islice(csv.reader(io.StringIO(sample.replace("\0", "")), delimiter=delimiter), _LOOKED_AT))
        except csv.Error:
            return 0.0, 0
        widths = [len(row) for row in rows if row]
        usual = max(set(widths), key=lambda width: (widths.count(width), width), default=0)
        return (widths.count(usual) / len(widths) if usual > 1 else 0.0), usual

    return max(_DELIMITERS, key=fitness)
