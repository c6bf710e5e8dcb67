"""A folder in BEIR's form, with BM25's candidates for its queries: a first stage without a cluster."""

from __future__ import annotations

from pathlib import Path

from reranker.errors import ConfigurationError
from reranker.rankings import Candidate, DataError, Ranking, json_lines, read_qrels

_QRELS = ("qrels/test.tsv", "qrels.tsv", "qrels/dev.tsv", "qrels.train.tsv", "qrels/train.tsv")


def load(folder: Path, *, depth: int, qrels: Path | None = None) -> tuple[list[Ranking], dict[str, dict[str, int]]]:
    """Queries with BM25's first `depth` documents (k1 1.2, b 0.75, English stop words), and the judgements.

    Raises:
        DataError: a file is missing or not of the form.
        ConfigurationError: the library bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise ConfigurationError(
            "candidates of a BEIR folder are made by bm25s, which is not installed: `make train`, or give candidates "
            "as JSON Lines"
        ) from error

    judged = read_qrels(qrels or _there(folder, _QRELS))
    corpus = [
        (_id(row), " ".join(part for part in (row.get("title"), row.get("text")) if part))
        for _, row in json_lines(_there(folder, ("corpus.jsonl", "corpus.jsonl.gz")))
    ]
    queries = [
        (_id(row), str(row["text"]))
        for _, row in json_lines(_there(folder, ("queries.jsonl", "queries.jsonl.gz")))
        if _id(row) in judged and row.get("text")
    ]
    if not corpus or not queries:
        raise DataError(f"{folder}: {len(corpus)} documents and {len(queries)} judged queries; both are needed")
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(bm25s.tokenize([text for _, text in corpus], stopwords="en", show_progress=False), show_progress=False)
    # each query alone: together, the library would hold a score for every document of every query
    rankings = []
    for query_id, text in queries:
        tokens = bm25s.tokenize([text], stopwords="en", show_progress=False)
        places, scores = index.retrieve(tokens, k=min(depth, len(corpus)), show_progress=False)
        found = [
            Candidate(*corpus[int(place)], float(score))
            for place, score in zip(places[0], scores[0], strict=True)
            if score > 0
        ]
        if found:
            rankings.append(Ranking(query_id, text, tuple(found)))
    if not rankings:
        raise DataError(f"{folder}: BM25 found nothing for any of its {len(queries)} queries")
    return rankings, judged


def _there(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: none of {', '.join(names)} is there; expected is a folder in BEIR's form")


def _id(row: object) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("_id"), str | int):
        raise DataError('a row without an _id; expected is {"_id": "1", "text": "..."}, one a line')
    return str(row["_id"])
