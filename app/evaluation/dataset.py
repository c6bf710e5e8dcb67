"""A judged set in BEIR's form: a corpus, queries, and who found which document relevant to which query."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import InvalidInput
from app.evaluation.findings import Finding, Findings, shown
from app.evaluation.judgements import find_judgements, read_judgements, split_of, text_lines
from app.ingest.records import BadLine, read_records, record_id

__all__ = ["Finding", "JudgedSet", "load_set", "sample_queries", "split_queries"]

_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
_QUERIES = ("queries.jsonl", "queries.jsonl.gz", "queries.tsv", "queries.tsv.gz")
_QUERY_HEADER = (
    {"_id", "id", "query-id", "query_id", "queryid", "qid", "query"},
    {"text", "query", "query_text", "title"},
)
_TINY = 10
"""Documents; of so few, the first ten results of every way are the same."""


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """Queries that can be measured: those with a text and at least one document of a grade above 0.

    `queries` is id -> text; `qrels` is query id -> document id -> grade, for the same queries; `corpus` is the file of
    documents, None where the set has none and is judged against what is in the store.
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
        folder: where the set lies; the corpus may be missing.
        qrels: a file of judgements in place of the folder's own.
        split: which of the folder's judgements; None: ``test``, else ``qrels.tsv``, else the only ones that there are.

    Raises:
        InvalidInput: nothing can be measured: a file is missing or can't be read, no judged query is left, the corpus
            is empty, or none of the relevant documents is in it. Names the file, the line and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        wrong = "a file, where the folder around it is needed" if folder.exists() else "there is no such folder"
        raise InvalidInput(f"{shown(str(folder))}: {wrong} (with corpus.jsonl, queries.jsonl and qrels)")
    try:
        return _load(folder, qrels, split)
    except PermissionError as error:
        raise InvalidInput(f"{shown(str(error.filename))}: it may not be read by this user") from error


def _load(folder: Path, qrels: Path | None, split: str | None) -> JudgedSet:
    findings = Findings()
    if qrels is None:
        path, chosen = find_judgements(folder, split, findings)
    elif qrels.is_file():
        path, chosen = qrels, split or split_of(qrels)
    else:
        raise InvalidInput(f"{shown(str(qrels))}: there is no such file of judgements")
    judged = read_judgements(path, findings)
    queries, kept = _measurable(_read_queries(folder, findings), judged, path.name, findings)
    corpus = _choose(folder, _CORPUS, findings)
    size = None if corpus is None else _check_corpus(corpus, kept, findings)
    name = folder.resolve().name or "set"
    return JudgedSet(name, queries, kept, corpus, size, chosen, findings.all())


def split_queries(judged: JudgedSet, *, share: float, seed: int) -> tuple[JudgedSet, JudgedSet]:
    """Divide the queries in two: about `share` of them (0 to 1), and the others.

    A query's side follows from the hash of its id and `seed` alone, so it keeps its side when others come or go;
    queries whose texts differ only in case and spaces go together, by the smallest of their ids. Neither side is empty:
    if the hashes say so, the query nearest to the border changes sides.

    Raises:
        InvalidInput: there are no two different queries.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1")
    groups: dict[str, list[str]] = {}
    for query_id, text in judged.queries.items():
        groups.setdefault(_normalised(text), []).append(query_id)
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
    """At most `most` (1 or more) of the queries; those with the same `seed` are the same, and a larger sample holds the
    smaller one. Which they are says nothing about the side that `split_queries` gives them, whatever its seed.
    """
    if most >= len(judged.queries):
        return judged
    chosen = set(sorted(judged.queries, key=lambda query_id: _place(query_id, f"sample {seed}"))[:most])
    return _part(judged, (q for q in judged.queries if q in chosen), f"{most} of {len(judged.queries)} queries")


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _place(query_id: str, seed: int | str) -> float:
    """A number in 0..1."""
    digest = hashlib.blake2b(f"{seed}\0{query_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _part(judged: JudgedSet, query_ids: Iterable[str], label: str) -> JudgedSet:
    queries = {query_id: judged.queries[query_id] for query_id in query_ids}
    qrels = {query_id: judged.qrels[query_id] for query_id in queries}
    return replace(judged, queries=queries, qrels=qrels, split=f"{judged.split} ({label})")


def _choose(folder: Path, names: tuple[str, ...], findings: Findings) -> Path | None:
    """The first of `names` that is there; the others are findings."""
    there = [folder / name for name in names if (folder / name).is_file()]
    for other in there[1:]:
        findings.add("ambiguous-file", f"{there[0].name} was read, {other.name} was not")
    return there[0] if there else None


def _read_queries(folder: Path, findings: Findings) -> dict[str, str]:
    path = _choose(folder, _QUERIES, findings)
    if path is None:
        raise InvalidInput(f"{shown(folder.name)}: there are no queries. Expected is one of {', '.join(_QUERIES)}")
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
        raise InvalidInput(f'{detail}. No row is a query; expected is {{"_id": "1", "text": "..."}}, one a line')
    findings.include(own)
    return queries


def _json_queries(path: Path, findings: Findings) -> Iterator[tuple[int, str | None, str | None]]:
    for row in read_records(path):
        if isinstance(row, BadLine):
            _bad_line(path, row, findings)
            continue
        number, fields = row
        text = fields.get("text", fields.get("query"))
        yield number, record_id(fields), text if isinstance(text, str) else None


def _tsv_queries(path: Path, findings: Findings) -> Iterator[tuple[int, str | None, str | None]]:
    ids, texts = _QUERY_HEADER
    for row, (number, line) in enumerate(text_lines(path, findings)):
        query_id, tab, text = line.partition("\t")
        if row == 0 and query_id.strip().lower() in ids and text.strip().lower() in texts:
            continue
        yield number, query_id.strip() or None, text if tab else None


def _bad_line(path: Path, line: BadLine, findings: Findings) -> None:
    if line.ends:
        raise InvalidInput(f"{path.name} line {line.number}: {line.detail}. Is the file complete?")
    findings.add("bad-row", f"{path.name} line {line.number}: {line.detail}")


def _measurable(
    queries: dict[str, str], judged: dict[str, dict[str, int]], qrels_name: str, findings: Findings
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """The queries, and their judgements, that have a text and a relevant document; in the order of the file."""
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
            f"{shown(next(iter(judged)), 40)!r}, those of the queries such as {shown(next(iter(queries)), 40)!r}: "
            f"they must be the same, with a text and a score above 0"
        )
    return texts, {query_id: judged[query_id] for query_id in texts}


def _check_corpus(path: Path, qrels: dict[str, dict[str, int]], findings: Findings) -> int:
    """Read the corpus once, a line at a time, keeping only ids; how many documents it has."""
    ids: set[str] = set()
    own = Findings()
    for row in read_records(path):
        if isinstance(row, BadLine):
            _bad_line(path, row, own)
            continue
        number, fields = row
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
        raise InvalidInput(f'{detail}. No row is a document; expected is {{"_id": "1", "title": "", "text": "..."}}')
    findings.include(own)
    if len(ids) < _TINY:
        findings.add("tiny-corpus", f"{len(ids)} in all", count=len(ids))
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
