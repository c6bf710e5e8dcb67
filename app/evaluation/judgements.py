"""Files of relevance judgements: BEIR's three columns and TREC's four, in all common spellings."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import InvalidInput
from app.evaluation.findings import Findings, shown
from app.ingest.records import open_unpacked

WHOLE_FILE = "all"
"""Split of a ``qrels.tsv``, whose name contains none."""
HIGHEST_GRADE = 1000
"""Grades above it count as mistakes (the measures' library keeps a table as long as the highest grade)."""

_LONGEST_LINE = 1 << 20
_SUFFIX = r"\.(?:tsv|txt|trec|qrels)(?:\.gz)?"
_SPLIT_IN_FOLDER = re.compile(rf"(?P<split>.+?){_SUFFIX}", re.IGNORECASE)
_SPLIT_IN_NAME = re.compile(rf"qrels(?:[._-](?P<split>.+?))?{_SUFFIX}", re.IGNORECASE)
_GRADE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_HEADER = {
    "query": {"query-id", "query_id", "queryid", "query", "qid", "topic", "topic_id", "topic-id"},
    "document": {"corpus-id", "corpus_id", "doc-id", "doc_id", "docid", "docno", "document_id", "document-id", "did"},
    "grade": {"score", "relevance", "rel", "grade", "label", "judgement", "judgment"},
}
_BEIR, _TREC = (0, 1, 2), (0, 2, 3)


def find_judgements(folder: Path, split: str | None, findings: Findings) -> tuple[Path, str]:
    """Return the file of judgements in a set's folder, and its split.

    Without `split`: ``test`` if there is one, else ``qrels.tsv``, else the only file.

    Raises:
        InvalidInput: there is no file, not the requested one, or several without a default.
    """
    found: dict[str, list[Path]] = {}
    for place, pattern in ((folder / "qrels", _SPLIT_IN_FOLDER), (folder, _SPLIT_IN_NAME)):
        if not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            if (match := pattern.fullmatch(path.name)) and path.is_file():
                found.setdefault(match["split"] or WHOLE_FILE, []).append(path)
    names = ", ".join(shown(name) for name in sorted(found))
    if not found:
        raise InvalidInput(
            f"{shown(folder.name)}: there are no judgements. Expected qrels/test.tsv, qrels.tsv or qrels.SPLIT.tsv "
            f"with the columns query-id, corpus-id, score; pass a file of another name with --qrels"
        )
    if split is None:
        split = next((name for name in ("test", WHOLE_FILE) if name in found), None) or next(iter(found))
        if split not in ("test", WHOLE_FILE) and len(found) > 1:
            raise InvalidInput(f"{shown(folder.name)}: there are judgements of several splits, choose one: {names}")
    if split not in found:
        raise InvalidInput(f"{shown(folder.name)}: there are no judgements of the split {split!r}, only of: {names}")
    chosen, *others = found[split]
    for other in others:
        findings.add("ambiguous-file", f"{chosen.name} was read, {other.name} was not")
    return chosen, split


def split_of(path: Path) -> str:
    """Return the split in the name of a file of judgements."""
    match = _SPLIT_IN_NAME.fullmatch(path.name) or _SPLIT_IN_FOLDER.fullmatch(path.name)
    return (match["split"] if match else None) or WHOLE_FILE


def read_judgements(path: Path, findings: Findings) -> dict[str, dict[str, int]]:
    """Read query id -> document id -> grade; unusable rows are findings.

    The file has three columns (BEIR) or four (TREC: query, iteration, document, grade), with or without a header,
    separated by tabs or spaces, plain or gzip. Grades are whole numbers; if a pair is judged twice, the higher grade
    counts.

    Raises:
        InvalidInput: the file is unreadable or contains no judgement.
    """
    judged: dict[str, dict[str, int]] = {}
    own = Findings()
    header: _Header | None = None
    for row, (number, line) in enumerate(text_lines(path, own)):
        fields = _fields(line)
        if row == 0 and (header := _header(fields)):
            continue
        query, document, grade, wrong = _judgement(fields, header)
        if wrong:
            own.add("bad-row", f"{path.name} line {number}: {wrong}")
            continue
        if grade < 0:
            own.add("negative-grade", f"{path.name} line {number}: {grade}")
        grades = judged.setdefault(query, {})
        if document in grades:
            own.add("duplicate-judgement", f"{query} {document}")
            grade = max(grade, grades[document])
        grades[document] = grade
    if not judged:
        detail = own.first("bad-row") or f"{path.name}: it is empty"
        raise InvalidInput(
            f"{detail}. No row is a judgement; expected query-id, corpus-id and score, separated by tabs"
        )
    findings.include(own)
    return judged


def text_lines(path: Path, findings: Findings) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines of a text file with their numbers from 1; plain or gzip, UTF-8 with or without BOM.

    Raises:
        InvalidInput: the file can't be opened or read to its end.
    """
    number = 0
    try:
        with open_unpacked(path) as file:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                whole = line.endswith(b"\n") or len(line) < _LONGEST_LINE
                while not line.endswith(b"\n") and (rest := file.readline(_LONGEST_LINE)):
                    line = rest
                try:
                    text = line.decode() if whole else None
                except UnicodeDecodeError:
                    findings.add("bad-row", f"{path.name} line {number}: not UTF-8")
                    continue
                if text is None:
                    findings.add("bad-row", f"{path.name} line {number}: longer than {_LONGEST_LINE} bytes")
                elif text.strip():
                    yield number, text.rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "not a whole gzip file"
        raise InvalidInput(f"{path.name} line {number + 1}: can't be read from here on: {why}") from error


def _fields(line: str) -> list[str]:
    fields = [field.strip() for field in line.rstrip().split("\t")]
    return fields if len(fields) >= 3 else line.split()


@dataclass(frozen=True, slots=True)
class _Header:
    """Positions of query, document and grade in rows of `width` columns."""

    places: tuple[int, int, int]
    width: int


def _header(fields: Sequence[str]) -> _Header | None:
    """Parse a header row; None if the row is not a header."""
    query, document, grade = (
        next((place for place, field in enumerate(fields) if field.lower() in names), None)
        for names in _HEADER.values()
    )
    if query is None or document is None or grade is None:
        return None
    return _Header((query, document, grade), len(fields))


def _judgement(fields: Sequence[str], header: _Header | None) -> tuple[str, str, int, str]:
    """Return query, document, grade, and the problem of the row ("" for none)."""
    if header is not None and header.width == len(fields):
        places = header.places
    elif len(fields) in (3, 4):
        places = _BEIR if len(fields) == 3 else _TREC
    else:
        return "", "", 0, f"{len(fields)} columns instead of 3 or 4"
    query, document, grade = (fields[place] for place in places)
    if not query or not document:
        return "", "", 0, "an id is empty"
    if not _GRADE.fullmatch(grade) or abs(float(grade)) > HIGHEST_GRADE:
        return "", "", 0, f"the score {shown(grade, 40)!r} is not a whole number up to {HIGHEST_GRADE}"
    return query, document, int(float(grade)), ""
