"""Input of offline reranking: queries with candidates as JSON Lines, and judgements in BEIR format.

A line is ``{"query_id", "query", "candidates": [{"id", "text", "score", "label"?}]}``. `score` is the fused score of
the first stage; `label` is a judgement of the candidate (above 0: relevant) and may be absent.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from reranker.errors import RerankerError

_SHAPE = '{"query_id": "1", "query": "...", "candidates": [{"id": "a", "text": "...", "score": 0.7}]}'


class DataError(RerankerError):
    """A file of candidates or judgements is unusable; the message names the file, the line and the expected form."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage found by the first stage; `label` is None without a judgement."""

    id: str
    text: str
    score: float = 0.0
    label: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query and its candidates in the order of the first stage, best first."""

    query_id: str
    query: str
    candidates: tuple[Candidate, ...]

    @property
    def texts(self) -> list[str]:
        """Texts of the candidates."""
        return [item.text for item in self.candidates]

    @property
    def scores(self) -> list[float]:
        """Scores of the first stage."""
        return [item.score for item in self.candidates]

    def first(self, depth: int) -> Ranking:
        """Return the ranking cut at `depth` candidates."""
        return replace(self, candidates=self.candidates[:depth])


Qrels = Mapping[str, Mapping[str, int]]
"""query id -> document id -> grade."""


def open_text(path: Path, mode: str = "rt") -> IO[str]:
    """Open a text file, gzip-compressed if its name says so."""
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, mode, encoding="utf-8"))
    return cast(IO[str], path.open(mode.replace("t", ""), encoding="utf-8"))


def read_rankings(path: Path) -> list[Ranking]:
    """Return all queries of a file that have a candidate.

    Raises:
        DataError: the file is missing or empty, a line has another form, or a query occurs twice.
    """
    found: dict[str, Ranking] = {}
    for number, row in json_lines(path):
        ranking = _ranking(row, path, number)
        if ranking.query_id in found:
            raise DataError(f"{path} line {number}: the query id {ranking.query_id!r} occurs twice")
        if ranking.candidates:
            found[ranking.query_id] = ranking
    if not found:
        raise DataError(f"{path}: no query has candidates. Expected, one per line: {_SHAPE}")
    return list(found.values())


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> int:
    """Write the file atomically; return the number of queries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part") if path.suffix != ".gz" else path.with_name(f".part.{path.name}")
    count = 0
    with open_text(aside, "wt") as file:
        for ranking in rankings:
            file.write(to_line(ranking))
            count += 1
    aside.replace(path)
    return count


def to_line(ranking: Ranking) -> str:
    """Return the JSON of a query, including the newline."""
    candidates = [
        {"id": item.id, "text": item.text, "score": round(item.score, 6)}
        | ({} if item.label is None else {"label": item.label})
        for item in ranking.candidates
    ]
    row = {"query_id": ranking.query_id, "query": ranking.query, "candidates": candidates}
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: ``query-id``, ``corpus-id``, ``score`` separated by white space, or TREC's four columns.

    Raises:
        DataError: the file is missing, or a row has another form (a header is skipped).
    """
    found: dict[str, dict[str, int]] = {}
    if not path.is_file():
        raise DataError(
            f"{path}: the file of judgements does not exist (query-id, corpus-id, score, separated by tabs)"
        )
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            columns = line.split("\t") if "\t" in line else line.split()
            if not line.strip():
                continue
            try:
                query, document = (columns[0], columns[2]) if len(columns) == 4 else (columns[0], columns[1])
                grade = int(float(columns[-1]))
            except (IndexError, ValueError) as error:
                if number == 1:
                    continue
                raise DataError(
                    f"{path} line {number}: {line.strip()[:80]!r} is not a judgement; expected query-id, corpus-id "
                    "and a score, separated by tabs"
                ) from error
            found.setdefault(query.strip(), {})[document.strip()] = grade
    if not found:
        raise DataError(f"{path}: it contains no judgement")
    return found


def qrels_of(rankings: Iterable[Ranking]) -> dict[str, dict[str, int]]:
    """Return the candidates' own labels as judgements, for queries with at least one label."""
    found: dict[str, dict[str, int]] = {}
    for ranking in rankings:
        judged = {item.id: round(item.label) for item in ranking.candidates if item.label is not None}
        if judged:
            found[ranking.query_id] = judged
    return found


def add_labels(rankings: Iterable[Ranking], qrels: Qrels) -> list[Ranking]:
    """Return the rankings with a label for each judged candidate."""
    return [
        replace(
            ranking,
            candidates=tuple(
                replace(item, label=float(qrels[ranking.query_id][item.id]))
                if item.id in qrels.get(ranking.query_id, {})
                else item
                for item in ranking.candidates
            ),
        )
        for ranking in rankings
    ]


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line numbers from 1 and the parsed content of each line. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: the file does not exist. Expected, one per line: {_SHAPE}")
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path} line {number}: it is not JSON ({error.msg})") from error


def _ranking(row: Any, path: Path, number: int) -> Ranking:
    try:
        candidates = tuple(
            Candidate(
                str(item["id"]),
                _text(item["text"]),
                float(item.get("score", 0.0)),
                None if item.get("label") is None else float(item["label"]),
            )
            for item in row["candidates"]
        )
        return Ranking(str(row["query_id"]), _text(row["query"]), candidates)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} line {number}: {error!r}. Expected: {_SHAPE}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is expected")
    return value
