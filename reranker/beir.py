"""A folder in BEIR format, with BM25 candidates for its queries: a first stage without a cluster."""

from __future__ import annotations

from pathlib import Path

from reranker.errors import ConfigurationError
from reranker.rankings import Candidate, DataError, Ranking, json_lines, read_qrels

_QRELS = ("qrels/test.tsv", "qrels.tsv", "qrels/dev.tsv", "qrels.train.tsv", "qrels/train.tsv")


def load(folder: Path, *, depth: int, qrels: Path | None = None) -> tuple[list[Ranking], dict[str, dict[str, int]]]:
    """Return the queries with their first `depth` documents by BM25 (k1 1.2, b 0.75, English stop words), and the
    judgements.

    Raises:
        DataError: a file is missing or not in BEIR format.
        ConfigurationError: the library bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise ConfigurationError(
            "candidates for a BEIR folder need bm25s, which is not installed: run `make train`, or pass candidates "
            "as JSON Lines"
        ) from error

    judged = read_qrels(qrels or _find_file(folder, _QRELS))
    corpus = [
        (_id(row), " ".join(part for part in (row.get("title"), row.get("text")) if part))
        for _, row in json_lines(_find_file(folder, ("corpus.jsonl", "corpus.jsonl.gz")))
    ]
    queries = [
        (_id(row), str(row["text"]))
        for _, row in json_lines(_find_file(folder, ("queries.jsonl", "queries.jsonl.gz")))
        if _id(row) in judged and row.get("text")
    ]
    if not corpus or not queries:
        raise DataError(f"{folder}: {len(corpus)} documents and {len(queries)} judged queries; both are needed")
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(bm25s.tokenize([text for _, text in corpus], stopwords="en", show_progress=False), show_progress=False)
    # one query at a time: for a batch, the library holds a score for every document of every query
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


def _find_file(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: contains none of {', '.join(names)}; expected a folder in BEIR format")


def _id(row: object) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("_id"), str | int):
        raise DataError('a row has no _id; expected {"_id": "1", "text": "..."}, one a line')
    return str(row["_id"])
