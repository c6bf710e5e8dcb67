"""Small judged sets, on disk and ready-made."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.evaluation.dataset import JudgedSet

CORPUS = [{"_id": f"d{number}", "title": "", "text": f"text {number}"} for number in range(12)]
QUERIES = [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq2\td3\t1\n"


def write(path: Path, content: str | bytes) -> Path:
    """`content` in `path`, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def json_lines(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_set(folder: Path, files: Mapping[str, str | bytes | None] | None = None) -> Path:
    """A set of 12 documents and 2 queries in `folder`, with `files` in addition or in place; None leaves one out."""
    whole: dict[str, str | bytes | None] = {
        "corpus.jsonl": json_lines(CORPUS),
        "queries.jsonl": json_lines(QUERIES),
        "qrels/test.tsv": QRELS,
        **(files or {}),
    }
    for name, content in whole.items():
        if content is not None:
            write(folder / name, content)
    return folder


def judged_set(queries: dict[str, str], qrels: dict[str, dict[str, int]] | None = None) -> JudgedSet:
    """A set without files; each query's relevant document is named as the query unless `qrels` says otherwise."""
    return JudgedSet(
        name="set",
        queries=queries,
        qrels=qrels or {query: {query: 1} for query in queries},
        corpus=None,
        corpus_size=None,
        split="test",
        findings=(),
    )
