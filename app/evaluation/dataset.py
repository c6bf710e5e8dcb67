"""Judged sets in BEIR format: a corpus, queries, and the documents that are relevant to each query."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.errors import InvalidInput
from app.evaluation.findings import Finding, Findings, shown
from app.evaluation.judgements import find_judgements, read_judgements, split_of, text_lines
from app.feedback.entries import normalised
from app.ingest.records import BadLine, read_records, record_id

_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
_QUERIES = ("queries.jsonl", "queries.jsonl.gz", "queries.tsv", "queries.tsv.gz")
_QUERY_HEADER = (
    {"_id", "id", "query-id", "query_id", "queryid", "qid", "query"},
    {"text", "query", "query_text", "title"},
)
_TINY = 10
"""Number of documents below which the first ten results of every way are the same."""


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """The measurable queries of a set: those with a text and at least one document of a grade above 0.

    `queries` is id -> text; `qrels` is query id -> document id -> grade, for the same queries; `corpus` is the file of
    documents, or None if the set has none and is judged against the store's content.
    """

    name: str
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    corpus: Path | None
    corpus_size: int | None
    split: str
    findings: tuple[Finding, ...]


def load_set(folder: Path, *, qrels: Path | None = None, split: str | None = None) -> JudgedSet:
    """Read the set in `folder`: ``corpus.jsonl``, ``queries.jsonl`` or ``.tsv``, ``qrels*`` (each also ``.gz``).

    Args:
        folder: folder of the set; the corpus may be missing.
        qrels: a file of judgements in place of the folder's own.
        split: selects the folder's judgements; None: ``test``, else ``qrels.tsv``, else the only ones.

    Raises:
        InvalidInput: nothing can be measured: a file is missing or unreadable, no judged query is left, the corpus is
            empty, or none of the relevant documents is in it. The message names the file, the line and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        wrong = "this is a file: pass its folder" if folder.exists() else "the folder does not exist"
        raise InvalidInput(f"{shown(str(folder))}: {wrong} (with corpus.jsonl, queries.jsonl and qrels)")
    try:
        return _load(folder, qrels, split)
    except PermissionError as error:
        raise InvalidInput(f"{shown(str(error.filename))}: permission denied: make it readable") from error


def _load(folder: Path, qrels: Path | None, split: str | None) -> JudgedSet:
    findings = Findings()
    if qrels is None:
        path, chosen = find_judgements(folder, split, findings)
    elif qrels.is_file():
        path, chosen = qrels, split or split_of(qrels)
    else:
        raise InvalidInput(f"{shown(str(qrels))}: the file of judgements does not exist")
    judged = read_judgements(path, findings)
    asked = _choose(folder, _QUERIES, findings)
    if asked is None:
        raise InvalidInput(f"{shown(folder.name)}: there are no queries. Expected one of {', '.join(_QUERIES)}")
    queries, kept = measurable(read_queries(asked, findings), judged, path.name, findings)
    corpus = _choose(folder, _CORPUS, findings)
    size = None if corpus is None else _check_corpus(corpus, kept, findings)
    name = folder.resolve().name or "set"
    return JudgedSet(name, queries, kept, corpus, size, chosen, findings.all())


def split_queries(judged: JudgedSet, *, share: float, seed: int) -> tuple[JudgedSet, JudgedSet]:
    """Split the queries in two: about `share` of them (0 to 1), and the others.

    A query's side follows from the hash of its id and `seed` alone, so that it does not depend on the other queries.
    Queries whose texts differ only in case and spaces go together, by the smallest of their ids. Neither side is empty:
    if necessary, the query nearest to the border changes sides.

    Raises:
        InvalidInput: there are no two different queries.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1")
    groups: dict[str, list[str]] = {}
    for query_id, text in judged.queries.items():
        groups.setdefault(normalised(text), []).append(query_id)
    if len(groups) < 2:
        raise InvalidInput(
            f"{shown(judged.name)}: it has {len(groups)} different queries, and two are needed to divide it"
        )
    places = {_place(min(members), seed): members for members in groups.values()}
    first = {place for place in places if place < share}
    if not first or len(first) == len(places):
        first ^= {min(places, key=lambda place: (abs(place - share), place))}
    chosen = {query_id for place in first for query_id in places[place]}
    return (
        _part(judged, (q for q in judged.queries if q in chosen), f"{share:.0%} by seed {seed}"),
        _part(judged, (q for q in judged.queries if q not in chosen), f"the rest of {share:.0%} by seed {seed}"),
    )


def sample_queries(judged: JudgedSet, most: int, *, seed: int = 0) -> JudgedSet:
    """Return at most `most` (1 or more) of the queries; with the same `seed`, a larger sample contains the smaller one.

    The sample is independent of the sides that `split_queries` assigns, whatever its seed.
    """
    if most >= len(judged.queries):
        return judged
    chosen = set(sorted(judged.queries, key=lambda query_id: _place(query_id, f"sample {seed}"))[:most])
    return _part(judged, (q for q in judged.queries if q in chosen), f"{most} of {len(judged.queries)} queries")


def _place(query_id: str, seed: int | str) -> float:
    """Return a hash value in 0..1."""
    digest = hashlib.blake2b(f"{seed}\0{query_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _part(judged: JudgedSet, query_ids: Iterable[str], label: str) -> JudgedSet:
    queries = {query_id: judged.queries[query_id] for query_id in query_ids}
    qrels = {query_id: judged.qrels[query_id] for query_id in queries}
    return replace(judged, queries=queries, qrels=qrels, split=f"{judged.split} ({label})")


def _choose(folder: Path, names: tuple[str, ...], findings: Findings) -> Path | None:
    """Return the first of `names` that exists; report the others as findings."""
    there = [folder / name for name in names if (folder / name).is_file()]
    for other in there[1:]:
        findings.add("ambiguous-file", f"{there[0].name} was read, {other.name} was not")
    return there[0] if there else None


def read_queries(path: Path, findings: Findings) -> dict[str, str]:
    """Read query id -> text from JSON Lines or TSV; unusable rows are findings.

    Raises:
        InvalidInput: the file is unreadable or contains no query.
    """
    rows = _tsv_queries if ".tsv" in path.name else _json_queries
    queries: dict[str, str] = {}
    own = Findings()
    for number, query_id, text in rows(path, own):
        if query_id is None or text is None:
            own.add("bad-row", f"{path.name} line {number}: {'no id' if query_id is None else 'no text'}")
        elif query_id in queries:
            own.add("duplicate-query", query_id)
        else:
            queries[query_id] = text
    if not queries:
        detail = own.first("bad-row") or f"{path.name}: it is empty"
        raise InvalidInput(f'{detail}. No row is a query; expected {{"_id": "1", "text": "..."}}, one per line')
    findings.include(own)
    return queries


def _json_queries(path: Path, findings: Findings) -> Iterator[tuple[int, str | None, str | None]]:
    for number, fields in _rows(path, findings):
        text = fields.get("text", fields.get("query"))
        yield number, record_id(fields), text if isinstance(text, str) else None


def _tsv_queries(path: Path, findings: Findings) -> Iterator[tuple[int, str | None, str | None]]:
    ids, texts = _QUERY_HEADER
    for row, (number, line) in enumerate(text_lines(path, findings)):
        query_id, tab, text = line.partition("\t")
        if row == 0 and query_id.strip().lower() in ids and text.strip().lower() in texts:
            continue
        yield number, query_id.strip() or None, text if tab else None


def _rows(path: Path, findings: Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the fields of each line; lines that are no objects are findings."""
    for row in read_records(path):
        if not isinstance(row, BadLine):
            yield row
            continue
        if row.ends:
            raise InvalidInput(f"{path.name} line {row.number}: {row.detail}. Is the file complete?")
        findings.add("bad-row", f"{path.name} line {row.number}: {row.detail}")


def measurable(
    queries: dict[str, str], judged: dict[str, dict[str, int]], qrels_name: str, findings: Findings
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Return the queries with a text and a relevant document, and their judgements, in the order of the file.

    Raises:
        InvalidInput: none is left.
    """
    texts: dict[str, str] = {}
    for query_id, text in queries.items():
        if not text.strip():
            findings.add("empty-query", query_id)
        elif query_id not in judged:
            findings.add("query-without-judgement", query_id)
        elif max(judged[query_id].values()) <= 0:
            findings.add("query-without-relevant", query_id)
        else:
            texts[query_id] = text.strip()
    for query_id in judged:
        if query_id not in queries:
            findings.add("judged-query-missing", query_id)
    if not any(grade > 0 for grades in judged.values() for grade in grades.values()):
        raise InvalidInput(f"{qrels_name}: no document is relevant to any query (no score is above 0)")
    if not texts:
        raise InvalidInput(
            f"{qrels_name}: none of its {len(judged)} queries can be measured. Its ids are such as "
            f"{shown(next(iter(judged)), 40)!r}, the queries' ids are such as {shown(next(iter(queries)), 40)!r}: "
            f"they must be the same, with a text and a score above 0"
        )
    return texts, {query_id: judged[query_id] for query_id in texts}


def _check_corpus(path: Path, qrels: dict[str, dict[str, int]], findings: Findings) -> int:
    """Read the corpus once, line by line, keeping only ids; return the number of documents."""
    ids: set[str] = set()
    own = Findings()
    for number, fields in _rows(path, own):
        document_id = record_id(fields)
        if document_id is None:
            own.add("bad-row", f"{path.name} line {number}: no _id")
        elif document_id in ids:
            own.add("duplicate-document", document_id)
        else:
            ids.add(document_id)
            if not any(str(fields.get(name) or "").strip() for name in ("text", "title")):
                own.add("empty-document", document_id)
    if not ids:
        detail = own.first("bad-row") or f"{path.name}: it is empty"
        raise InvalidInput(f'{detail}. No row is a document; expected {{"_id": "1", "title": "", "text": "..."}}')
    findings.include(own)
    if len(ids) < _TINY:
        findings.add("tiny-corpus", f"{len(ids)} in total", count=len(ids))
    judged = {document: None for grades in qrels.values() for document in grades}
    relevant = {document for grades in qrels.values() for document, grade in grades.items() if grade > 0}
    if relevant.isdisjoint(ids):
        raise InvalidInput(
            f"{path.name}: none of the {len(relevant)} relevant documents is in it. The judgements name such as "
            f"{shown(min(relevant), 40)!r}, the corpus such as {shown(min(ids), 40)!r}: the ids must be the same"
        )
    for document in judged:
        if document not in ids:
            findings.add("unknown-document", document)
    return len(ids)
