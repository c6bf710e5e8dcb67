"""What is reranked offline: queries with their candidates, as JSON Lines; and judgements in BEIR's form.

A line is ``{"query_id", "query", "candidates": [{"id", "text", "score", "label"?}]}``: `score` is the first stage's
(the fused one), `label` what somebody said of the candidate (above 0: relevant), where anybody did.
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
    """A file of candidates or judgements can't be used; names the file, the line and what was expected."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that the first stage found; `label` is None where nobody judged it."""

    id: str
    text: str
    score: float = 0.0
    label: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query and its candidates, best first as the first stage has them."""

    query_id: str
    query: str
    candidates: tuple[Candidate, ...]


Qrels = Mapping[str, Mapping[str, int]]
"""query id -> document id -> grade."""


def open_text(path: Path, mode: str = "rt") -> IO[str]:
    """A text file, gzip-compressed where its name says so."""
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, mode, encoding="utf-8"))
    return cast(IO[str], path.open(mode.replace("t", ""), encoding="utf-8"))


def read_rankings(path: Path) -> list[Ranking]:
    """All queries of a file that have a candidate.

    Raises:
        DataError: no such file, a line that is none of ours, the same query twice, or no query at all.
    """
    found: dict[str, Ranking] = {}
    for number, row in json_lines(path):
        ranking = _ranking(row, path, number)
        if ranking.query_id in found:
            raise DataError(f"{path} line {number}: the query id {ranking.query_id!r} came already")
        if ranking.candidates:
            found[ranking.query_id] = ranking
    if not found:
        raise DataError(f"{path}: no query in it has candidates. Expected is, one a line: {_SHAPE}")
    return list(found.values())


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> int:
    """Write the file, whole or not at all; how many queries there were."""
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
    """The JSON of a query, with its line end."""
    candidates = [
        {"id": item.id, "text": item.text, "score": round(item.score, 6)}
        | ({} if item.label is None else {"label": item.label})
        for item in ranking.candidates
    ]
    row = {"query_id": ranking.query_id, "query": ranking.query, "candidates": candidates}
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements: ``query-id``, ``corpus-id``, ``score`` between white space, or TREC's four columns.

    Raises:
        DataError: no such file, or a row of another form (a header is passed over).
    """
    found: dict[str, dict[str, int]] = {}
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of judgements (query-id, corpus-id, score between tabs)")
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
                    f"{path} line {number}: {line.strip()[:80]!r} is no judgement; expected are query-id, corpus-id "
                    "and a score between tabs"
                ) from error
            found.setdefault(query.strip(), {})[document.strip()] = grade
    if not found:
        raise DataError(f"{path}: it holds no judgement")
    return found


def qrels_of(rankings: Iterable[Ranking]) -> dict[str, dict[str, int]]:
    """Judgements as the candidates' own labels have them, of the queries with at least one label."""
    found: dict[str, dict[str, int]] = {}
    for ranking in rankings:
        judged = {item.id: round(item.label) for item in ranking.candidates if item.label is not None}
        if judged:
            found[ranking.query_id] = judged
    return found


def with_labels(rankings: Iterable[Ranking], qrels: Qrels) -> list[Ranking]:
    """The same with a label for each judged candidate."""
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
    """Line numbers from 1 and what each line holds. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Expected is, one a line: {_SHAPE}")
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
        raise DataError(f"{path} line {number}: {error!r}. Expected is: {_SHAPE}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is expected")
    return value
